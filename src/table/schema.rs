//! Schema inference: which files are looked at, what each says, and one schema from all of them.

use std::collections::HashSet;
use std::io::{Cursor, Read};
use std::sync::Arc;

use arrow::csv::reader::Format as CsvFormat;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::json::reader::infer_json_schema_from_iterator;
use bytes::{Buf, Bytes};
use datafusion::arrow_avro::reader::ReaderBuilder as AvroReaderBuilder;
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::physical_plan::parquet::transform_schema_to_view;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;
use parquet::arrow::parquet_to_arrow_schema;
use parquet::file::metadata::ParquetMetaData;

use super::snapshot::Snapshot;
use crate::error::{Error, Result};
use crate::format::{self, FileType, Format};
use crate::location::S3Location;
use crate::scan::{FooterCache, ScanSource, read_range};
use crate::store::BucketStore;

/// Up to so many files, all are looked at; above, the first by key and the newest. Of CSV and TSV it is always all.
const LOOK_AT_ALL: usize = 64;

/// Bytes at the start of a file that inference reads of formats other than Parquet.
const HEAD: u64 = 1024 * 1024;

/// The same for each of more than [`LOOK_AT_ALL`] files.
const SHORT_HEAD: u64 = 64 * 1024;

/// Records of a text file that inference looks at.
const RECORDS: usize = 1000;

/// What inference finds out about a table.
#[derive(Debug)]
pub(crate) struct Inferred {
    /// The columns in the files, without partition columns.
    pub(crate) file_schema: SchemaRef,
    pub(crate) source: ScanSource,
    pub(crate) compression: CompressionTypeVariant,
}

/// Infers the schema of a snapshot's files, and keeps the statistics that their footers gave.
///
/// Costs one GET for each file that is looked at (two for a footer that exceeds the first read), all in flight together.
pub(crate) async fn infer(store: &BucketStore, footers: &FooterCache, snapshot: &mut Snapshot) -> Result<Inferred> {
    let file_type = match snapshot.file_type {
        Some(file_type) => file_type,
        None => tell_type(store, &snapshot.files[0].object).await?,
    };
    let looked_at = files_to_look_at(snapshot, file_type.format);
    let is_complete = looked_at.len() == snapshot.files.len();
    if file_type.format == Format::Parquet {
        return infer_parquet(store, footers, snapshot, &looked_at, is_complete).await;
    }
    let length = if looked_at.len() > LOOK_AT_ALL { SHORT_HEAD } else { HEAD };
    let heads: Vec<Head> = stream::iter(looked_at)
        .map(|index| read_head(store, &snapshot.files[index].object, file_type, length))
        .buffered(LOOK_AT_ALL)
        .try_collect()
        .await?;
    let mut merged = Merged::new(file_type.format);
    let mut source = None;
    for head in &heads {
        let (schema, found) = head.infer(file_type.format)?;
        match source {
            None => source = Some((found, head)),
            Some((ScanSource::Json { newline_delimited }, first)) => {
                if !matches!(found, ScanSource::Json { newline_delimited: other } if other == newline_delimited) {
                    let reason = format!(
                        "{} and {} are JSON of two kinds, an array and newline-delimited; keep one kind in a folder",
                        first.location, head.location
                    );
                    return Err(Error::SchemaConflict { reason });
                }
            }
            Some(_) => {}
        }
        merged.add(&head.location, schema)?;
    }
    let source = source.map_or(ScanSource::Avro, |(source, _)| source);
    Ok(Inferred { file_schema: merged.finish(is_complete), source, compression: file_type.compression })
}

/// Indexes of the files that decide the schema.
///
/// DataFusion reads CSV by position: a header in another order, in a file that nobody looked at, would give wrong values.
fn files_to_look_at(snapshot: &Snapshot, format: Format) -> Vec<usize> {
    let count = snapshot.files.len();
    if count <= LOOK_AT_ALL || matches!(format, Format::Csv | Format::Tsv) {
        return (0..count).collect();
    }
    let age = |index: &usize| (snapshot.files[*index].object.last_modified, *index);
    let newest = (0..count).max_by_key(age).unwrap_or(0);
    if newest == 0 { vec![0] } else { vec![0, newest] }
}

async fn infer_parquet(
    store: &BucketStore,
    footers: &FooterCache,
    snapshot: &mut Snapshot,
    looked_at: &[usize],
    is_complete: bool,
) -> Result<Inferred> {
    let read: Vec<Arc<ParquetMetaData>> = stream::iter(looked_at.iter().copied())
        .map(|index| footers.get(store, &snapshot.files[index].object))
        .buffered(LOOK_AT_ALL)
        .try_collect()
        .await?;
    let mut merged = Merged::new(Format::Parquet);
    for (index, footer) in looked_at.iter().zip(&read) {
        let location = location(store, &snapshot.files[*index].object);
        let metadata = footer.file_metadata();
        let schema = parquet_to_arrow_schema(metadata.schema_descr(), metadata.key_value_metadata())
            .map_err(|error| invalid(&location, Format::Parquet, &error))?;
        merged.add(&location, transform_schema_to_view(&schema))?;
    }
    let partition_fields = snapshot.partition_fields.clone();
    let file_schema = without(&merged.finish(is_complete), &partition_fields);
    for (index, footer) in looked_at.iter().zip(&read) {
        let statistics = DFParquetMetadata::statistics_from_parquet_metadata(footer, &file_schema)?;
        snapshot.files[*index].statistics = Some(Arc::new(statistics));
    }
    let compression = CompressionTypeVariant::UNCOMPRESSED;
    Ok(Inferred { file_schema, source: ScanSource::Parquet, compression })
}

/// The schema without the columns that folders already give.
pub(crate) fn without(schema: &Schema, partition_fields: &Fields) -> SchemaRef {
    let is_partition = |field: &Field| partition_fields.iter().any(|partition| partition.name() == field.name());
    let fields: Fields = schema.fields().iter().filter(|field| !is_partition(field)).map(Arc::clone).collect();
    Arc::new(Schema::new(fields))
}

fn location(store: &BucketStore, object: &ObjectMeta) -> String {
    S3Location::new(store.bucket(), object.location.as_ref()).to_string()
}

fn invalid(location: &str, format: Format, error: &dyn std::fmt::Display) -> Error {
    let reason = format!("{error}; replace it, or remove it from the table's folder");
    Error::InvalidFile { location: location.to_owned(), format: format.to_string(), reason }
}

/// The type of an object whose name does not tell it: one GET.
async fn tell_type(store: &BucketStore, object: &ObjectMeta) -> Result<FileType> {
    let bytes = read_range(store, object, 0..object.size.min(HEAD)).await?;
    let compression = format::compression_of(&bytes);
    let text = decompress(&bytes, compression, bytes.len() as u64 == object.size)
        .map_err(|error| invalid(&location(store, object), Format::Json, &error))?;
    match FileType::from_magic(&text) {
        Some(FileType { format, .. }) if format.is_text() || compression == CompressionTypeVariant::UNCOMPRESSED => {
            Ok(FileType { format, compression })
        }
        _ => Err(Error::NotATable {
            location: location(store, object),
            reason: "neither its name nor its first bytes tell a format; end its name in .parquet, .csv, .tsv, .json, .arrow or .avro".into(),
        }),
    }
}

/// The start of a file, decompressed.
struct Head {
    location: String,
    bytes: Bytes,
    /// Whether this is the whole file.
    is_whole: bool,
}

async fn read_head(store: &BucketStore, object: &ObjectMeta, file_type: FileType, length: u64) -> Result<Head> {
    let location = location(store, object);
    let bytes = read_range(store, object, 0..object.size.min(length)).await?;
    let is_whole = bytes.len() as u64 == object.size;
    let text = decompress(&bytes, file_type.compression, is_whole)
        .map_err(|error| invalid(&location, file_type.format, &error))?;
    if let Some(found) = not_text(&text).filter(|_| file_type.format.is_text()) {
        let reason = format!("its first bytes are those of {found}; rename it to end as such, or replace it");
        return Err(Error::InvalidFile { location, format: file_type.to_string(), reason });
    }
    // Of a compressed file, more than the head may come out of its first bytes: what comes after is not looked at.
    let is_whole = is_whole && text.len() as u64 <= DECOMPRESSED;
    Ok(Head { location, bytes: text, is_whole })
}

/// What the first bytes of a text show where it is none: a binary format, or one more compression.
fn not_text(text: &[u8]) -> Option<String> {
    // A header may well start with PAR1 or BZh, but has no control characters.
    if !text.iter().take(64).any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace()) {
        return None;
    }
    if let Some(file_type) = FileType::from_magic(text).filter(|file_type| !file_type.format.is_text()) {
        return Some(file_type.to_string());
    }
    match format::compression_of(text) {
        CompressionTypeVariant::UNCOMPRESSED => None,
        compression => Some(format!("{compression:?}").to_lowercase()),
    }
}

/// Bytes that a compressed head may grow to.
const DECOMPRESSED: u64 = 4 * HEAD;

fn decompress(bytes: &Bytes, compression: CompressionTypeVariant, is_whole: bool) -> std::io::Result<Bytes> {
    if compression == CompressionTypeVariant::UNCOMPRESSED {
        return Ok(bytes.clone());
    }
    let mut text = Vec::new();
    let reader = FileCompressionType::from(compression).convert_read(bytes.clone().reader())?;
    match reader.take(DECOMPRESSED + 1).read_to_end(&mut text) {
        // The end of a head that is not the whole file is no error.
        Err(error) if is_whole || text.is_empty() => Err(error),
        _ => Ok(text.into()),
    }
}

impl Head {
    fn infer(&self, format: Format) -> Result<(Schema, ScanSource)> {
        let inferred = match format {
            Format::Csv => self.infer_delimited(b','),
            Format::Tsv => self.infer_delimited(b'\t'),
            Format::Json => self.infer_json(),
            Format::Arrow => self.infer_arrow(),
            Format::Avro | Format::Parquet => AvroReaderBuilder::new()
                .build(Cursor::new(&self.bytes))
                .map(|reader| (strip_metadata(&reader.schema()), ScanSource::Avro)),
        };
        inferred.map_err(|error| invalid(&self.location, format, &error))
    }

    fn infer_delimited(&self, delimiter: u8) -> Result<(Schema, ScanSource), ArrowError> {
        let text = if self.is_whole { &self.bytes[..] } else { complete_records(&self.bytes) };
        let format = CsvFormat::default().with_header(true).with_delimiter(delimiter);
        let (schema, _) = format.infer_schema(text, Some(RECORDS))?;
        // A column without values so far may hold anything: text holds it all.
        let fields = schema.fields().iter().map(|field| match field.data_type() {
            DataType::Null => Field::new(field.name(), DataType::Utf8, true),
            data_type => Field::new(field.name(), data_type.clone(), true),
        });
        Ok((Schema::new(fields.collect::<Fields>()), ScanSource::Delimited { delimiter }))
    }

    fn infer_json(&self) -> Result<(Schema, ScanSource), ArrowError> {
        let newline_delimited = format::first_byte(&self.bytes) != Some(b'[');
        let records: Vec<&[u8]> = if newline_delimited {
            let text = if self.is_whole { &self.bytes[..] } else { complete_records(&self.bytes) };
            text.split(|byte| *byte == b'\n').filter(|line| format::first_byte(line).is_some()).take(RECORDS).collect()
        } else {
            array_elements(&self.bytes, RECORDS)
        };
        let values = records.into_iter().map(|record| {
            serde_json::from_slice::<serde_json::Value>(record)
                .map_err(|error| ArrowError::JsonError(error.to_string()))
        });
        let schema = infer_json_schema_from_iterator(values)?;
        Ok((schema, ScanSource::Json { newline_delimited }))
    }

    fn infer_arrow(&self) -> Result<(Schema, ScanSource), ArrowError> {
        /// The alignment of messages that the format asks for. Writers may pad to more, as arrow-rs does to 64 bytes.
        const ALIGNMENT: usize = 8;
        if !self.bytes.starts_with(b"ARROW1") || self.bytes.len() < ALIGNMENT {
            return Err(ArrowError::ParseError("it does not start with ARROW1, so it is no Arrow IPC file".into()));
        }
        let padding =
            self.bytes[ALIGNMENT..].chunks(ALIGNMENT).take_while(|chunk| chunk.iter().all(|b| *b == 0)).count();
        let start = (ALIGNMENT + padding * ALIGNMENT).min(self.bytes.len());
        let mut decoder = StreamDecoder::new();
        let mut messages = arrow::buffer::Buffer::from(self.bytes.slice(start..));
        while decoder.schema().is_none() && !messages.is_empty() {
            decoder.decode(&mut messages)?;
        }
        let schema = decoder.schema().ok_or_else(|| ArrowError::ParseError("its schema is cut off".into()))?;
        Ok((Schema::new(schema.fields().clone()), ScanSource::Arrow))
    }
}

/// The schema without metadata, which the batches of a scan do not carry either.
fn strip_metadata(schema: &Schema) -> Schema {
    let strip = |field: &Arc<Field>| Field::new(field.name(), field.data_type().clone(), field.is_nullable());
    Schema::new(schema.fields().iter().map(strip).collect::<Fields>())
}

/// The text up to its last line end outside of quotes.
fn complete_records(text: &[u8]) -> &[u8] {
    let (mut in_quotes, mut end) = (false, 0);
    for (position, byte) in text.iter().enumerate() {
        match byte {
            b'"' => in_quotes = !in_quotes,
            b'\n' if !in_quotes => end = position + 1,
            _ => {}
        }
    }
    &text[..end]
}

/// The first complete elements of a JSON array that may be cut off.
fn array_elements(text: &[u8], limit: usize) -> Vec<&[u8]> {
    let Some(open) = text.iter().position(|byte| *byte == b'[') else { return Vec::new() };
    let mut elements = Vec::new();
    let (mut depth, mut in_string, mut escaped, mut start) = (0_u32, false, false, open + 1);
    for (position, byte) in text.iter().enumerate().skip(open + 1) {
        if elements.len() == limit {
            break;
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b',' | b']' if depth == 0 => {
                if format::first_byte(&text[start..position]).is_some() {
                    elements.push(&text[start..position]);
                }
                start = position + 1;
                if *byte == b']' {
                    break;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    elements
}

/// One schema from those of several files, by name.
struct Merged {
    format: Format,
    /// Each column, with the file that it was first seen in and in how many files it is.
    columns: Vec<(Field, String, usize)>,
    files: usize,
}

impl Merged {
    fn new(format: Format) -> Self {
        Self { format, columns: Vec::new(), files: 0 }
    }

    fn add(&mut self, location: &str, schema: Schema) -> Result<()> {
        let mut names = HashSet::new();
        if let Some(name) = schema.fields().iter().map(|field| field.name()).find(|name| !names.insert(*name)) {
            let reason = format!("{location} has two columns \"{name}\"; rename one of them");
            return Err(Error::SchemaConflict { reason });
        }
        let is_delimited = matches!(self.format, Format::Csv | Format::Tsv);
        if is_delimited && self.files > 0 {
            // DataFusion reads these by position: another order would give wrong values.
            let known = self.columns.iter().map(|(field, ..)| field.name());
            if !known.eq(schema.fields().iter().map(|field| field.name())) {
                return Err(Error::SchemaConflict {
                    reason: format!(
                        "the headers of {} and {location} have other columns or another order; give both the same header",
                        self.columns.first().map_or("", |(_, first, _)| first.as_str()),
                    ),
                });
            }
        }
        for field in schema.fields() {
            match self.columns.iter_mut().find(|(known, ..)| known.name() == field.name()) {
                None => {
                    let field = Field::new(field.name(), field.data_type().clone(), field.is_nullable());
                    self.columns.push((field, location.to_owned(), 1));
                }
                Some((known, first, count)) => {
                    let Some(data_type) = widen(known.data_type(), field.data_type(), self.format) else {
                        let reason = format!(
                            "column \"{}\" is {} in {first} and {} in {location}; rewrite one of them, or keep them in two folders",
                            field.name(),
                            known.data_type(),
                            field.data_type()
                        );
                        return Err(Error::SchemaConflict { reason });
                    };
                    *known = Field::new(known.name(), data_type, known.is_nullable() || field.is_nullable());
                    *count += 1;
                }
            }
        }
        self.files += 1;
        Ok(())
    }

    /// The merged schema. A column that is absent from a file, or may be in one that was not looked at, is nullable.
    fn finish(self, is_complete: bool) -> SchemaRef {
        let files = self.files;
        let fields = self.columns.into_iter().map(|(field, _, count)| {
            let nullable = field.is_nullable() || !is_complete || count < files;
            field.with_nullable(nullable)
        });
        Arc::new(Schema::new(fields.collect::<Fields>()))
    }
}

/// The type that holds the values of both. Types that a text was given by inference give way to each other.
fn widen(a: &DataType, b: &DataType, format: Format) -> Option<DataType> {
    match (a, b) {
        _ if a == b => Some(a.clone()),
        (DataType::Null, other) | (other, DataType::Null) => Some(other.clone()),
        _ if !format.is_text() => None,
        (DataType::Int64, DataType::Float64) | (DataType::Float64, DataType::Int64) => Some(DataType::Float64),
        _ if format != Format::Json => Some(DataType::Utf8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str, is_whole: bool) -> Head {
        Head { location: "s3://b/x".into(), bytes: text.as_bytes().to_vec().into(), is_whole }
    }

    fn columns(schema: &Schema) -> String {
        schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn delimited_heads() {
        for (text, is_whole, expected) in [
            ("a,b\n1,x\n2,y\n", true, "a Int64, b Utf8"),
            ("a,b\n1,x\n2.5", false, "a Int64, b Utf8"),
            ("a,b\n1,\"x\n9", false, "a Utf8, b Utf8"),
            ("a,b\n1,\n2,\n", true, "a Int64, b Utf8"),
            ("a,b\n", true, "a Utf8, b Utf8"),
        ] {
            let (schema, _) = head(text, is_whole).infer(Format::Csv).unwrap();
            assert_eq!(columns(&schema), expected, "{text:?}");
        }
        let (schema, _) = head("a\tb\n1\t2024-01-01\n", true).infer(Format::Tsv).unwrap();
        assert_eq!(columns(&schema), "a Int64, b Date32");
    }

    #[test]
    fn json_heads() {
        for (text, is_whole, expected, lines) in [
            ("{\"a\":1}\n{\"a\":2,\"b\":\"x\"}\n", true, "a Int64, b Utf8", true),
            ("{\"a\":1}\n{\"a\":\"cut", false, "a Int64", true),
            (" [ {\"a\":[1,2],\"b\":\"],[\\\"\"}, {\"a\":[3]} ]", true, "a List(Int64), b Utf8", false),
            ("[{\"a\":1},{\"a\":2.5},{\"a\":\"cut", false, "a Float64", false),
            ("[]", true, "", false),
        ] {
            let (schema, source) = head(text, is_whole).infer(Format::Json).unwrap();
            assert_eq!(columns(&schema), expected, "{text}");
            assert!(matches!(source, ScanSource::Json { newline_delimited } if newline_delimited == lines));
        }
        let error = head("{\"a\":", true).infer(Format::Json).unwrap_err().to_string();
        assert!(error.contains("s3://b/x cannot be read as JSON"), "{error}");
    }

    #[test]
    fn arrow_heads_with_any_padding() {
        use arrow::array::{ArrayRef, Int64Array};
        use arrow::ipc::MetadataVersion;
        use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
        use arrow::record_batch::RecordBatch;

        let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
        for alignment in [8, 16, 32, 64] {
            let options = IpcWriteOptions::try_new(alignment, false, MetadataVersion::V5).unwrap();
            let mut writer = FileWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
            writer.write(&batch).unwrap();
            let bytes = Bytes::from(writer.into_inner().unwrap());
            let head = |bytes| Head { location: "s3://b/x".into(), bytes, is_whole: true };
            let (schema, _) = head(bytes.clone()).infer(Format::Arrow).unwrap();
            assert_eq!(columns(&schema), "a Int64", "{alignment}");
            for length in 0..80 {
                assert!(head(bytes.slice(..length)).infer(Format::Arrow).is_err(), "cut off after {length} bytes");
            }
        }
    }

    #[test]
    fn schemas_merge_by_name_or_name_the_conflict() {
        let schema = |name: &str, data_type| Schema::new(vec![Field::new(name, data_type, false)]);
        let merge = |format, parts: [(&str, DataType); 2]| {
            let mut merged = Merged::new(format);
            for (index, (name, data_type)) in parts.into_iter().enumerate() {
                merged.add(&format!("s3://b/{index}"), schema(name, data_type))?;
            }
            Ok::<_, Error>(merged.finish(true))
        };
        let both = merge(Format::Parquet, [("a", DataType::Int32), ("b", DataType::Utf8)]).unwrap();
        assert_eq!(columns(&both), "a Int32, b Utf8");
        assert!(both.fields().iter().all(|field| field.is_nullable()), "each is absent from one file");

        let error = merge(Format::Parquet, [("a", DataType::Int32), ("a", DataType::Utf8)]).unwrap_err().to_string();
        for part in ["\"a\"", "Int32", "Utf8", "s3://b/0", "s3://b/1"] {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(columns(&merge(Format::Csv, [("a", DataType::Int64), ("a", DataType::Date32)]).unwrap()), "a Utf8");
        assert_eq!(
            columns(&merge(Format::Json, [("a", DataType::Int64), ("a", DataType::Float64)]).unwrap()),
            "a Float64"
        );
        assert!(merge(Format::Json, [("a", DataType::Int64), ("a", DataType::Utf8)]).is_err());
        assert!(merge(Format::Csv, [("a", DataType::Int64), ("b", DataType::Int64)]).is_err());

        let (twice, _) = head("a,b,a\n1,2,3\n", true).infer(Format::Csv).unwrap();
        let error = Merged::new(Format::Csv).add("s3://b/x", twice).unwrap_err().to_string();
        assert!(error.contains("s3://b/x has two columns \"a\""), "{error}");
    }
}
