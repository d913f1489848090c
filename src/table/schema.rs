//! Schema inference: which files are looked at, and one schema from what each of them says.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::physical_plan::parquet::transform_schema_to_view;
use futures::{StreamExt, TryStreamExt, stream};
use parquet::arrow::parquet_to_arrow_schema;
use parquet::file::metadata::ParquetMetaData;

use super::head::{self, SchemaCache, Told};
use super::snapshot::Snapshot;
use crate::error::{Error, Result};
use crate::format::{FileType, Format};
use crate::scan::{FooterCache, ScanSource};
use crate::settings::ArchivedObjects;
use crate::store::{BucketStore, SMALL};

/// Up to so many files, all are looked at; above, the first by key and the newest. Of formats that are read by position
/// it is always all.
const LOOK_AT_ALL: usize = 64;

/// What inference finds out about a table.
#[derive(Debug)]
pub(crate) struct Inferred {
    /// The columns in the files, without partition columns.
    pub(crate) file_schema: SchemaRef,
    pub(crate) source: ScanSource,
    pub(crate) file_type: FileType,
    /// Whether all files were looked at.
    pub(crate) is_complete: bool,
}

/// Infers the schema of a snapshot's files, and keeps the statistics that their footers gave.
///
/// Costs one GET for each file that is looked at (more for a footer that exceeds the first read), all in flight together.
pub(crate) async fn infer(
    store: &BucketStore,
    footers: &FooterCache,
    schemas: &SchemaCache,
    archived_objects: ArchivedObjects,
    snapshot: &mut Snapshot,
) -> Result<Inferred> {
    let is_readable =
        |index: &usize| archived_objects == ArchivedObjects::Read || snapshot.files[*index].archived.is_none();
    let readable: Vec<usize> = (0..snapshot.files.len()).filter(is_readable).collect();
    let Some(first) = readable.first() else { return Err(super::archived(store, &snapshot.files[0])) };
    let file_type = match snapshot.file_type {
        Some(file_type) => file_type,
        None => head::tell_type(store, &snapshot.files[*first].object).await?,
    };
    let looked_at = files_to_look_at(snapshot, readable, file_type.format);
    let is_complete = looked_at.len() == snapshot.files.len() && snapshot.leaves.is_none();
    if file_type.format == Format::Parquet {
        let file_schema = infer_parquet(store, footers, snapshot, &looked_at, is_complete).await?;
        return Ok(Inferred { file_schema, source: ScanSource::Parquet, file_type, is_complete });
    }
    // Heads that stay in memory serve the scan, too, and small files are read whole.
    let read_of = |size: u64| if size <= SMALL { size } else { head::head_length(file_type.format, false) };
    let total: u64 = looked_at.iter().map(|index| read_of(snapshot.files[*index].object.size)).sum();
    let is_kept = looked_at.len() <= LOOK_AT_ALL || store.reads().can_keep(total);
    // What a head says is kept, not the head: there may be very many.
    let mut heads = stream::iter(looked_at)
        .map(|index| {
            let object = &snapshot.files[index].object;
            let length = if is_kept { read_of(object.size) } else { head::head_length(file_type.format, true) };
            schemas.get(store, object, file_type, length)
        })
        .buffered(LOOK_AT_ALL);
    let mut merged = Merged::new(file_type.format);
    let mut first: Option<Arc<Told>> = None;
    while let Some(told) = heads.try_next().await? {
        merged.add(&told.location, told.schema.clone())?;
        let first = first.get_or_insert_with(|| Arc::clone(&told));
        if first.source != told.source {
            let reason = format!(
                "{} and {} are JSON of two kinds, an array and newline-delimited; keep one kind in a folder",
                first.location, told.location
            );
            return Err(Error::SchemaConflict { reason });
        }
    }
    let source = first.map_or(ScanSource::Avro, |first| first.source);
    Ok(Inferred { file_schema: merged.finish(is_complete), source, file_type, is_complete })
}

/// Indexes of the files that decide the schema, among those that can be read.
///
/// Where DataFusion reads by position, columns in another order in a file that nobody looked at would give wrong values.
fn files_to_look_at(snapshot: &Snapshot, readable: Vec<usize>, format: Format) -> Vec<usize> {
    if readable.len() <= LOOK_AT_ALL || format.is_by_position() {
        return readable;
    }
    let age = |index: &usize| (snapshot.files[*index].object.last_modified, *index);
    let newest = readable.iter().copied().max_by_key(age);
    let mut looked_at: Vec<usize> = readable.first().copied().into_iter().chain(newest).collect();
    looked_at.dedup();
    looked_at
}

async fn infer_parquet(
    store: &BucketStore,
    footers: &FooterCache,
    snapshot: &mut Snapshot,
    looked_at: &[usize],
    is_complete: bool,
) -> Result<SchemaRef> {
    let read: Vec<Arc<ParquetMetaData>> = stream::iter(looked_at.iter().copied())
        .map(|index| footers.get(store, &snapshot.files[index].object))
        .buffered(LOOK_AT_ALL)
        .try_collect()
        .await?;
    let mut merged = Merged::new(Format::Parquet);
    for (index, footer) in looked_at.iter().zip(&read) {
        let location = head::location(store, &snapshot.files[*index].object);
        let metadata = footer.file_metadata();
        let schema = parquet_to_arrow_schema(metadata.schema_descr(), metadata.key_value_metadata())
            .map_err(|error| head::invalid(&location, Format::Parquet, &error))?;
        merged.add(&location, transform_schema_to_view(&schema))?;
    }
    let partition_fields = snapshot.partition_fields.clone();
    let file_schema = without(&merged.finish(is_complete), &partition_fields);
    for (index, footer) in looked_at.iter().zip(&read) {
        let statistics = DFParquetMetadata::statistics_from_parquet_metadata(footer, &file_schema)?;
        snapshot.files[*index].statistics = Some(Arc::new(statistics));
    }
    Ok(file_schema)
}

/// The schema without the columns that folders already give.
pub(crate) fn without(schema: &Schema, partition_fields: &Fields) -> SchemaRef {
    let is_partition = |field: &Field| partition_fields.iter().any(|partition| partition.name() == field.name());
    let fields: Fields = schema.fields().iter().filter(|field| !is_partition(field)).map(Arc::clone).collect();
    Arc::new(Schema::new(fields))
}

/// One schema from those of several files, by name.
struct Merged {
    format: Format,
    /// Each column, with the file that it was first seen in and in how many files it is.
    columns: Vec<(Field, String, usize)>,
    /// Where a name is among the columns.
    places: HashMap<String, usize>,
    /// The first file.
    first: String,
    files: usize,
}

impl Merged {
    fn new(format: Format) -> Self {
        Self { format, columns: Vec::new(), places: HashMap::new(), first: String::new(), files: 0 }
    }

    fn add(&mut self, location: &str, schema: Schema) -> Result<()> {
        let mut names = HashSet::new();
        if let Some(name) = schema.fields().iter().map(|field| field.name()).find(|name| !names.insert(*name)) {
            let reason = format!("{location} has two columns \"{name}\"; rename one of them");
            return Err(Error::SchemaConflict { reason });
        }
        if self.format.is_by_position() && self.files > 0 {
            let known = self.columns.iter().map(|(field, ..)| field.name());
            if !known.eq(schema.fields().iter().map(|field| field.name())) {
                return Err(Error::SchemaConflict {
                    reason: format!(
                        "{} and {location} have other columns or another order; give both the same columns in the same order",
                        self.first,
                    ),
                });
            }
        } else if self.files == 0 {
            location.clone_into(&mut self.first);
        }
        for field in schema.fields() {
            match self.places.get(field.name()).map(|place| &mut self.columns[*place]) {
                None => {
                    self.places.insert(field.name().clone(), self.columns.len());
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
        let fields = self.columns.into_iter().map(|(field, _, count)| {
            let nullable = field.is_nullable() || !is_complete || count < self.files;
            // Text without values so far may hold anything: text holds it all.
            let data_type = match field.data_type() {
                DataType::Null if self.format.is_delimited() => DataType::Utf8,
                data_type => data_type.clone(),
            };
            Field::new(field.name(), data_type, nullable)
        });
        Arc::new(Schema::new(fields.collect::<Fields>()))
    }
}

/// The type that holds the values of both. Types that inference gave to a text give way to each other.
fn widen(a: &DataType, b: &DataType, format: Format) -> Option<DataType> {
    match (a, b) {
        (DataType::List(a), DataType::List(b)) => Some(DataType::List(widen_field(a, b, format)?)),
        (DataType::LargeList(a), DataType::LargeList(b)) => Some(DataType::LargeList(widen_field(a, b, format)?)),
        (DataType::Struct(a), DataType::Struct(b)) => widen_struct(a, b, format).map(DataType::Struct),
        _ if a == b => Some(a.clone()),
        (DataType::Null, other) | (other, DataType::Null) => Some(other.clone()),
        _ if !format.is_text() => None,
        (DataType::Int64, DataType::Float64) | (DataType::Float64, DataType::Int64) => Some(DataType::Float64),
        _ if format.is_delimited() => Some(DataType::Utf8),
        _ => None,
    }
}

fn widen_field(a: &Field, b: &Field, format: Format) -> Option<FieldRef> {
    let data_type = widen(a.data_type(), b.data_type(), format)?;
    Some(Arc::new(Field::new(a.name(), data_type, a.is_nullable() || b.is_nullable())))
}

/// The fields of both, by name. Only JSON may lack some of them in one of two files.
fn widen_struct(a: &Fields, b: &Fields, format: Format) -> Option<Fields> {
    let is_same = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.name() == b.name());
    if !is_same && format != Format::Json {
        return None;
    }
    let mut fields: Vec<FieldRef> = Vec::with_capacity(a.len());
    for field in a {
        fields.push(match b.find(field.name()) {
            Some((_, other)) => widen_field(field, other, format)?,
            None => Arc::new(field.as_ref().clone().with_nullable(true)),
        });
    }
    let added = b.iter().filter(|field| a.find(field.name()).is_none());
    fields.extend(added.map(|field| Arc::new(field.as_ref().clone().with_nullable(true))));
    Some(fields.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(schema: &Schema) -> String {
        schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect::<Vec<_>>().join(", ")
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
        assert_eq!(columns(&merge(Format::Csv, [("a", DataType::Null), ("a", DataType::Int64)]).unwrap()), "a Int64");
        assert_eq!(columns(&merge(Format::Csv, [("a", DataType::Null), ("a", DataType::Null)]).unwrap()), "a Utf8");
        let list = |data_type| DataType::new_list(data_type, true);
        let lists = merge(Format::Json, [("a", list(DataType::Null)), ("a", list(DataType::Utf8))]).unwrap();
        assert_eq!(lists.field(0).data_type(), &list(DataType::Utf8));
        let object = |name| DataType::Struct(vec![Field::new(name, DataType::Int64, false)].into());
        let objects = merge(Format::Json, [("a", object("x")), ("a", object("y"))]).unwrap();
        let DataType::Struct(fields) = objects.field(0).data_type() else { panic!("{objects:?}") };
        assert_eq!(columns(&Schema::new(fields.clone())), "x Int64, y Int64");
        assert!(merge(Format::Parquet, [("a", object("x")), ("a", object("y"))]).is_err());
        assert!(merge(Format::Arrow, [("a", DataType::Int64), ("a", DataType::Int32)]).is_err());
        assert!(merge(Format::Arrow, [("a", DataType::Int64), ("b", DataType::Int64)]).is_err());
        assert!(merge(Format::Csv, [("a", DataType::Int64), ("b", DataType::Int64)]).is_err());

        let twice = ["a", "b", "a"].map(|name| Field::new(name, DataType::Int64, false));
        let error = Merged::new(Format::Csv).add("s3://b/x", Schema::new(twice.to_vec())).unwrap_err().to_string();
        assert!(error.contains("s3://b/x has two columns \"a\""), "{error}");
    }
}
