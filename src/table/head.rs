//! [`Head`]: the start of a file of any format but Parquet, and the schema that it tells.

use std::io::{Cursor, Read};
use std::sync::Arc;

use arrow::csv::reader::Format as CsvFormat;
use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::json::reader::infer_json_schema_from_iterator;
use bytes::{Buf, Bytes};
use datafusion::arrow_avro::reader::ReaderBuilder as AvroReaderBuilder;
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use object_store::ObjectMeta;
use regex::Regex;

use crate::error::{Error, Result};
use crate::format::{self, FileType, Format};
use crate::location::S3Location;
use crate::scan::{Delimited, FileShape, ScanSource, read_end};
use crate::settings::CsvSettings;
use crate::store::{BucketStore, ByteCache, CacheUse, End, ObjectVersion, Sized64};

/// Bytes at the start of a file that inference reads of formats other than Parquet and delimited text.
const HEAD: u64 = 1024 * 1024;

/// The same of delimited text, of which only the first records count.
const DELIMITED_HEAD: u64 = 256 * 1024;

/// The same where there are so many files that their heads do not stay in memory.
const SHORT_HEAD: u64 = 64 * 1024;

/// Bytes at the start of a file that inference reads, where the file is larger.
pub(super) fn head_length(format: Format, is_one_of_many: bool) -> u64 {
    match format {
        _ if is_one_of_many => SHORT_HEAD,
        Format::Csv | Format::Tsv => DELIMITED_HEAD,
        _ => HEAD,
    }
}

/// Records of a delimited file that inference looks at. Of JSON it is all of the head: a fraction that comes later would
/// be cut off without an error.
const RECORDS: usize = 1000;

/// The start of a file, decompressed.
struct Head {
    location: String,
    bytes: Bytes,
    /// Whether this is the whole file.
    is_whole: bool,
}

/// What a file says about its table.
#[derive(Debug)]
pub(crate) struct Told {
    pub(super) location: String,
    pub(super) shape: FileShape,
    /// Records that it has at least, of those that were looked at.
    pub(super) records: usize,
}

/// What files say, by version, by how much of the start was looked at, and by how text is written.
#[derive(Debug)]
pub(crate) struct SchemaCache(ByteCache<(ObjectVersion, u64, CsvSettings), Arc<Told>>);

impl Told {
    /// The same, with the columns of another file that has the same.
    pub(super) fn sharing(&self, other: &Self) -> Self {
        Self { location: self.location.clone(), shape: other.shape.clone(), records: self.records }
    }

    /// The same with these names for the first columns of text.
    pub(super) fn named(&self, names: &Schema) -> Arc<Self> {
        let is_text = matches!(self.shape.source, ScanSource::Delimited(_));
        let names = names.fields().iter().filter(|_| is_text).map(|field| Some(field.name()));
        let columns = self.shape.columns.iter().zip(names.chain(std::iter::repeat(None)));
        let columns = columns.map(|(column, name)| match name {
            Some(name) => Arc::new(column.as_ref().clone().with_name(name)),
            None => Arc::clone(column),
        });
        let shape = FileShape { source: self.shape.source, columns: columns.collect() };
        Arc::new(Self { location: self.location.clone(), shape, records: self.records })
    }
}

impl Sized64 for Arc<Told> {
    fn bytes(&self) -> u64 {
        (self.location.len() + self.shape.columns.iter().map(|field| field.size()).sum::<usize>()) as u64
    }
}

impl SchemaCache {
    /// A cache of at most so many bytes.
    pub(crate) fn new(capacity: u64) -> Result<Self> {
        Ok(Self(ByteCache::new(capacity)?))
    }

    /// What a file says in its first `length` bytes. Costs one GET where neither that nor those bytes are in memory.
    pub(super) async fn get(
        &self,
        store: &BucketStore,
        object: &ObjectMeta,
        file_type: FileType,
        csv: &CsvSettings,
        length: u64,
    ) -> Result<Arc<Told>> {
        let load =
            async { Ok(Arc::new(Head::read(store, object, file_type, length).await?.infer(file_type.format, csv)?)) };
        self.0.get_or_load(&(ObjectVersion::new(store.bucket(), object), length, csv.clone()), load).await
    }

    pub(crate) fn usage(&self) -> CacheUse {
        self.0.usage()
    }
}

impl Head {
    /// Reads at most `length` bytes: one GET.
    async fn read(store: &BucketStore, object: &ObjectMeta, file_type: FileType, length: u64) -> Result<Self> {
        let location = location(store, object);
        let bytes = read_end(store, object, End::Start, length).await?;
        let is_whole = bytes.len() as u64 == object.size;
        let text = decompress(&bytes, file_type.compression, is_whole)
            .map_err(|error| invalid(&location, file_type.format, &error))?;
        if let Some(found) = not_text(&text).filter(|_| file_type.format.is_text()) {
            let reason = format!("its first bytes are those of {found}; rename it to end as such, or replace it");
            return Err(Error::InvalidFile { location, format: file_type.to_string(), reason });
        }
        // Of a compressed file, more than the head may come out of its first bytes: what comes after is not looked at.
        let is_whole = is_whole && text.len() as u64 <= DECOMPRESSED;
        Ok(Self { location, bytes: text, is_whole })
    }

    /// What the file's first records say, or the schema that it carries.
    fn infer(&self, format: Format, csv: &CsvSettings) -> Result<Told> {
        let inferred = match format {
            Format::Csv => self.infer_delimited(delimited(csv, b','), &csv.nulls),
            Format::Tsv => self.infer_delimited(delimited(csv, b'\t'), &csv.nulls),
            Format::Json => self.infer_json(),
            Format::Arrow => self.infer_arrow(),
            Format::Avro | Format::Parquet => self.infer_avro(),
        };
        let (columns, source, records) = inferred.map_err(|error| invalid(&self.location, format, &error))?;
        Ok(Told { location: self.location.clone(), shape: FileShape { source, columns }, records })
    }

    fn infer_delimited(&self, delimited: Delimited, nulls: &[String]) -> Inferred {
        let text = if self.is_whole { &self.bytes[..] } else { complete_records(&self.bytes, &delimited) };
        if text.is_empty() && !self.is_whole {
            return Err(self.cut_off());
        }
        let mut format = CsvFormat::default()
            .with_header(delimited.has_header)
            .with_delimiter(delimited.delimiter)
            .with_quote(delimited.quote)
            .with_truncated_rows(delimited.pad_short_rows);
        if let Some(escape) = delimited.escape {
            format = format.with_escape(escape);
        }
        if let Some(comment) = delimited.comment {
            format = format.with_comment(comment);
        }
        if !nulls.is_empty() {
            let texts: Vec<String> = nulls.iter().map(|text| regex::escape(text)).collect();
            let regex = Regex::new(&format!("^(?:{})?$", texts.join("|")));
            format = format.with_null_regex(regex.map_err(|error| ArrowError::ExternalError(Box::new(error)))?);
        }
        let (schema, records) = format.infer_schema(text, Some(RECORDS))?;
        let fields = schema.fields().iter().map(|field| {
            let data_type = match field.data_type() {
                // The unit that inference saw would cut off the finer fractions of later values.
                DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Nanosecond, zone.clone()),
                data_type => data_type.clone(),
            };
            Field::new(field.name(), data_type, true)
        });
        Ok((fields.collect(), ScanSource::Delimited(delimited), records))
    }

    fn infer_json(&self) -> Inferred {
        let newline_delimited = format::first_byte(&self.bytes) != Some(b'[');
        let records: Vec<&[u8]> = if newline_delimited {
            let end = if self.is_whole {
                self.bytes.len()
            } else {
                self.bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
            };
            let lines = self.bytes[..end].split(|byte| *byte == b'\n');
            lines.filter(|line| format::first_byte(line).is_some()).collect()
        } else {
            array_elements(&self.bytes)
        };
        if records.is_empty() && !self.is_whole {
            return Err(self.cut_off());
        }
        let count = records.len();
        let values = records.into_iter().map(|record| {
            serde_json::from_slice::<serde_json::Value>(record)
                .map_err(|error| ArrowError::JsonError(error.to_string()))
        });
        let schema = infer_json_schema_from_iterator(values)?;
        Ok((schema.fields, ScanSource::Json { newline_delimited }, count))
    }

    fn cut_off(&self) -> ArrowError {
        ArrowError::ParseError(format!("its first record is longer than {} bytes", self.bytes.len()))
    }

    fn infer_avro(&self) -> Inferred {
        let mut reader = AvroReaderBuilder::new().build(Cursor::new(&self.bytes))?;
        let strip = |field: &Arc<Field>| Field::new(field.name(), field.data_type().clone(), field.is_nullable());
        // The batches of a scan do not carry metadata either.
        let columns = reader.schema().fields().iter().map(strip).collect();
        let records = reader.next().and_then(Result::ok).map_or(0, |batch| batch.num_rows());
        Ok((columns, ScanSource::Avro, records))
    }

    fn infer_arrow(&self) -> Inferred {
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
        let mut records = 0;
        while records == 0 && !messages.is_empty() {
            // A batch that is cut off is no error of the file.
            match decoder.decode(&mut messages) {
                Ok(Some(batch)) => records = batch.num_rows(),
                Ok(None) => {}
                Err(_) => break,
            }
        }
        Ok((schema.fields().clone(), ScanSource::Arrow, records))
    }
}

/// Columns, how they are read, and how many records there are at least.
type Inferred = Result<(Fields, ScanSource, usize), ArrowError>;

/// How text is written by the settings; `delimiter` is the format's own.
fn delimited(csv: &CsvSettings, delimiter: u8) -> Delimited {
    Delimited {
        has_header: csv.header.unwrap_or(true),
        delimiter: csv.delimiter.unwrap_or(delimiter),
        quote: csv.quote.unwrap_or(b'"'),
        escape: csv.escape,
        comment: csv.comment,
        pad_short_rows: csv.pad_short_rows,
    }
}

/// The text up to the last line end that is outside of quotes. A quote opens a field only at its start.
fn complete_records<'a>(text: &'a [u8], delimited: &Delimited) -> &'a [u8] {
    let Delimited { quote, delimiter, .. } = *delimited;
    let escape = delimited.escape.filter(|escape| *escape != quote);
    let (mut in_quotes, mut in_comment, mut at_start, mut end) = (false, false, true, 0);
    let mut bytes = text.iter().copied().enumerate().peekable();
    while let Some((position, byte)) = bytes.next() {
        if in_quotes {
            if Some(byte) == escape {
                bytes.next();
            // Two quotes stand for one.
            } else if byte == quote && bytes.next_if(|(_, next)| *next == quote).is_none() {
                in_quotes = false;
            }
            continue;
        }
        in_comment = byte != b'\n' && (in_comment || (position == end && Some(byte) == delimited.comment));
        in_quotes = at_start && byte == quote && !in_comment;
        at_start = byte == delimiter || byte == b'\n';
        if byte == b'\n' {
            end = position + 1;
        }
    }
    &text[..end]
}

/// The complete elements of a JSON array that may be cut off.
fn array_elements(text: &[u8]) -> Vec<&[u8]> {
    let Some(open) = text.iter().position(|byte| *byte == b'[') else { return Vec::new() };
    let mut elements = Vec::new();
    let (mut depth, mut in_string, mut escaped, mut start) = (0_u32, false, false, open + 1);
    for (position, byte) in text.iter().enumerate().skip(open + 1) {
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

/// How errors name an object.
pub(super) fn location(store: &BucketStore, object: &ObjectMeta) -> String {
    S3Location::new(store.bucket(), object.location.as_ref()).to_string()
}

/// The error of a file that is not what it claims.
pub(super) fn invalid(location: &str, format: Format, error: &dyn std::fmt::Display) -> Error {
    let reason = format!("{error}; replace it, or remove it from the table's folder");
    Error::InvalidFile { location: location.to_owned(), format: format.to_string(), reason }
}

/// The type of an object whose name does not tell it: one GET.
pub(super) async fn tell_type(store: &BucketStore, object: &ObjectMeta) -> Result<FileType> {
    let bytes = read_end(store, object, End::Start, HEAD).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str, is_whole: bool) -> Head {
        Head { location: "s3://b/x".into(), bytes: text.as_bytes().to_vec().into(), is_whole }
    }

    fn columns(columns: &Fields) -> String {
        columns.iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn delimited_heads() {
        for (text, is_whole, expected) in [
            ("a,b\n1,x\n2,y\n", true, "a Int64, b Utf8"),
            ("a,b\n1,x\n2.5", false, "a Int64, b Utf8"),
            ("a,b\n1,\"x\n9", false, "a Null, b Null"),
            ("a,b\n1,\n2,\n", true, "a Int64, b Null"),
            ("a,b\n", true, "a Null, b Null"),
            ("a,b\n1,5\" pipe\n2,3\" pipe\n3,4\" pi", false, "a Int64, b Utf8"),
            ("a,b\n1,\"x\"\"\ny\"\n2,\"z", false, "a Int64, b Utf8"),
            ("a\n2024-01-01T00:00:00\n", true, "a Timestamp(ns)"),
        ] {
            let Told { shape, .. } = head(text, is_whole).infer(Format::Csv, &CsvSettings::default()).unwrap();
            assert_eq!(columns(&shape.columns), expected, "{text:?}");
        }
        let tabs = head("a\tb\n1\t2024-01-01\n", true).infer(Format::Tsv, &CsvSettings::default()).unwrap();
        assert_eq!(columns(&tabs.shape.columns), "a Int64, b Date32");
    }

    #[test]
    fn json_heads() {
        for (text, is_whole, expected, lines) in [
            ("{\"a\":1}\n{\"a\":2,\"b\":\"x\"}\n", true, "a Int64, b Utf8", true),
            ("{\"a\":1}\n{\"a\":\"cut", false, "a Int64", true),
            (" [ {\"a\":[1,2],\"b\":\"],[\\\"\"}, {\"a\":[3]} ]", true, "a List(Int64), b Utf8", false),
            ("[{\"a\":1},{\"a\":2.5},{\"a\":\"cut", false, "a Float64", false),
            ("{\"a\":1,\"b\":\"5\\\" pipe\"}\n{\"a\":2", false, "a Int64, b Utf8", true),
            ("[]", true, "", false),
        ] {
            let Told { shape, .. } = head(text, is_whole).infer(Format::Json, &CsvSettings::default()).unwrap();
            assert_eq!(columns(&shape.columns), expected, "{text}");
            assert_eq!(shape.source, ScanSource::Json { newline_delimited: lines });
        }
        for text in ["[{\"a\":\"cut", "{\"a\":\"cut"] {
            let error = head(text, false).infer(Format::Json, &CsvSettings::default()).unwrap_err().to_string();
            assert!(error.contains("its first record is longer than"), "{error}");
        }
        let error = head("{\"a\":", true).infer(Format::Json, &CsvSettings::default()).unwrap_err().to_string();
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
            let Told { shape, .. } = head(bytes.clone()).infer(Format::Arrow, &CsvSettings::default()).unwrap();
            assert_eq!(columns(&shape.columns), "a Int64", "{alignment}");
            for length in 0..80 {
                assert!(
                    head(bytes.slice(..length)).infer(Format::Arrow, &CsvSettings::default()).is_err(),
                    "cut off after {length} bytes"
                );
            }
        }
    }
}
