//! Schema inference: which files are looked at, and one schema from what each of them says.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;
use parquet::file::metadata::ParquetMetaData;

use super::TableOptions;
use super::head::{self, SchemaCache, Told};
use super::snapshot::{Snapshot, SnapshotFile};
use crate::error::{Error, Result};
use crate::format::{FileType, Format};
use crate::scan::{FooterCache, footer};
use crate::settings::{ArchivedObjects, CsvSettings, SchemaPolicy};
use crate::store::{BucketStore, SMALL};
use crate::widen::{is_wider, widen};

/// Up to so many files, all are looked at unless the policy says otherwise.
const LOOK_AT_ALL: usize = 64;

/// What inference finds out about a table.
#[derive(Debug)]
pub(crate) struct Inferred {
    /// The columns in the files, without partition columns.
    pub(crate) file_schema: SchemaRef,
    pub(crate) file_type: FileType,
    /// Whether all files were looked at, and so fit the schema.
    pub(crate) is_complete: bool,
}

/// Infers the schema of a snapshot's files, and keeps the statistics that their footers gave.
///
/// Costs one GET for each file that is looked at (more for a footer that exceeds the first read), all in flight together;
/// nothing where the settings declare the schema and names tell the format.
pub(crate) async fn infer(
    store: &BucketStore,
    footers: &FooterCache,
    schemas: &SchemaCache,
    options: &TableOptions,
    snapshot: &mut Snapshot,
) -> Result<Inferred> {
    let is_readable = |index: &usize| {
        options.rules.archived_objects == ArchivedObjects::Read || snapshot.files[*index].archived.is_none()
    };
    let readable: Vec<usize> = (0..snapshot.files.len()).filter(is_readable).collect();
    let Some(first) = readable.first() else { return Err(super::archived(store, &snapshot.files[0])) };
    let file_type = match snapshot.file_type {
        Some(file_type) => file_type,
        None => head::tell_type(store, &snapshot.files[*first].object).await?,
    };
    if let Some(declared) = &options.schema {
        let file_schema = without(declared, &snapshot.partition_fields);
        return Ok(Inferred { file_schema, file_type, is_complete: false });
    }
    let looked_at = files_to_look_at(snapshot, readable, file_type.format, options.schema_policy);
    let is_complete = looked_at.len() == snapshot.files.len() && snapshot.leaves.is_none();
    let mut merged = Merged::new(file_type.format, options.schema_policy == SchemaPolicy::Strict);
    if file_type.format == Format::Parquet {
        let file_schema = infer_parquet(store, footers, snapshot, &looked_at, is_complete, merged).await?;
        return Ok(Inferred { file_schema, file_type, is_complete });
    }
    let files: Vec<&SnapshotFile> = looked_at.iter().map(|index| &snapshot.files[*index]).collect();
    let lengths = HeadLengths::new(store, file_type.format, &files);
    let told = tell(store, schemas, &options.csv, file_type, lengths, &files).await?;
    let mut latest: Option<Arc<Told>> = None;
    for (index, told) in looked_at.into_iter().zip(told) {
        merged.add(&told.location, &told.shape.columns)?;
        // Files mostly have the same columns: one copy of them is enough.
        let told = match latest {
            Some(latest) if latest.shape == told.shape => Arc::new(told.sharing(&latest)),
            _ => told,
        };
        latest = Some(Arc::clone(&told));
        snapshot.files[index].told = Some(told);
    }
    let file_schema = without(&merged.finish(is_complete), &snapshot.partition_fields);
    Ok(Inferred { file_schema, file_type, is_complete })
}

/// What these files say of themselves, other than Parquet: one GET for each that has not said it and is not in memory, all
/// in flight together. What a head says is kept, not the head: there may be very many.
pub(crate) async fn tell(
    store: &BucketStore,
    schemas: &SchemaCache,
    csv: &CsvSettings,
    file_type: FileType,
    lengths: HeadLengths,
    files: &[&SnapshotFile],
) -> Result<Vec<Arc<Told>>> {
    let head = |file: &&SnapshotFile| {
        let (told, object) = (file.told.clone(), file.object.clone());
        async move {
            match told {
                Some(told) => Ok(told),
                None => schemas.get(store, &object, file_type, csv, lengths.of(&object)).await,
            }
        }
    };
    let heads: Vec<_> = files.iter().map(head).collect();
    stream::iter(heads).buffered(LOOK_AT_ALL).try_collect().await
}

/// How much of the start of files is read at first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadLengths {
    format: Format,
    is_kept: bool,
}

impl HeadLengths {
    /// For these files: heads that stay in memory serve the scan, too, and small files are read whole.
    pub(crate) fn new(store: &BucketStore, format: Format, files: &[&SnapshotFile]) -> Self {
        let kept = Self { format, is_kept: true };
        let total: u64 = files.iter().map(|file| kept.of(&file.object)).sum();
        Self { format, is_kept: files.len() <= LOOK_AT_ALL || store.reads().can_keep(total) }
    }

    fn of(&self, object: &ObjectMeta) -> u64 {
        match self.is_kept {
            true if object.size <= SMALL => object.size,
            is_kept => head::head_length(self.format, !is_kept),
        }
    }
}

/// Checks that a file that was not looked at when the table was opened has columns that the table can hold.
pub(crate) fn check_fit(told: &Told, table: &Schema, format: Format, is_declared: bool) -> Result<()> {
    check_names(&told.location, &told.shape.columns)?;
    for field in &told.shape.columns {
        let Ok(column) = table.field_with_name(field.name()) else { continue };
        let (wide, narrow) = (column.data_type(), field.data_type());
        let fits = match format {
            // What the user says is how a text is parsed, and what cannot be parsed so is an error. But of a number that is
            // read as an integer, JSON's fractions would be cut off.
            _ if format.is_text() && is_declared => !cuts_fractions(wide, narrow),
            // One inference may see less of what the other has seen.
            _ if format.is_text() => {
                widen_in(wide, narrow, format).is_some_and(|both| both.equals_datatype(wide) || is_text(wide))
            }
            _ => is_wider(wide, narrow),
        };
        if !fits {
            let reason = format!(
                "column \"{}\" is {wide} in the table and {narrow} in {}; set schema_policy to all, so that the table's type comes from all files, or declare a type that holds both",
                field.name(),
                told.location
            );
            return Err(Error::SchemaConflict { reason });
        }
    }
    Ok(())
}

/// Whether fractions would be read as integers, at any depth.
fn cuts_fractions(wide: &DataType, narrow: &DataType) -> bool {
    match (wide, narrow) {
        (DataType::List(wide) | DataType::LargeList(wide), DataType::List(narrow)) => {
            cuts_fractions(wide.data_type(), narrow.data_type())
        }
        (DataType::Struct(wide), DataType::Struct(narrow)) => narrow.iter().any(|field| {
            wide.find(field.name()).is_some_and(|(_, wide)| cuts_fractions(wide.data_type(), field.data_type()))
        }),
        _ => wide.is_integer() && *narrow == DataType::Float64,
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Columns of one name cannot be told apart.
fn check_names(location: &str, columns: &Fields) -> Result<()> {
    let mut names = HashSet::new();
    match columns.iter().map(|field| field.name()).find(|name| !names.insert(*name)) {
        None => Ok(()),
        Some(name) => {
            let reason = format!("{location} has two columns \"{name}\"; rename one of them");
            Err(Error::SchemaConflict { reason })
        }
    }
}

/// Indexes of the files that decide the schema, among those that can be read.
fn files_to_look_at(snapshot: &Snapshot, readable: Vec<usize>, format: Format, policy: SchemaPolicy) -> Vec<usize> {
    let age = |index: &usize| (snapshot.files[*index].object.last_modified, *index);
    let newest = || readable.iter().copied().max_by_key(age);
    let first = readable.first().copied();
    let mut looked_at: Vec<usize> = match policy {
        SchemaPolicy::All | SchemaPolicy::Strict => return readable,
        // What text says of its types is a guess, better the more is seen of it; and its header is needed anyway.
        SchemaPolicy::Auto if readable.len() <= LOOK_AT_ALL || format.is_delimited() => return readable,
        SchemaPolicy::Auto => first.into_iter().chain(newest()).collect(),
        SchemaPolicy::First => first.into_iter().collect(),
        SchemaPolicy::Newest => newest().into_iter().collect(),
        SchemaPolicy::Sample(count) => {
            let count = count.clamp(1, readable.len());
            let last = readable.len() - 1;
            (0..count).map(|place| readable[place * last / (count - 1).max(1)]).collect()
        }
    };
    looked_at.dedup();
    looked_at
}

async fn infer_parquet(
    store: &BucketStore,
    footers: &FooterCache,
    snapshot: &mut Snapshot,
    looked_at: &[usize],
    is_complete: bool,
    mut merged: Merged,
) -> Result<SchemaRef> {
    let read: Vec<Arc<ParquetMetaData>> = stream::iter(looked_at.iter().copied())
        .map(|index| footers.get(store, &snapshot.files[index].object))
        .buffered(LOOK_AT_ALL)
        .try_collect()
        .await?;
    for (index, footer) in looked_at.iter().zip(&read) {
        let location = head::location(store, &snapshot.files[*index].object);
        let columns = footer::columns(footer).map_err(|error| head::invalid(&location, Format::Parquet, &error))?;
        merged.add(&location, columns.fields())?;
    }
    let partition_fields = snapshot.partition_fields.clone();
    let file_schema = without(&merged.finish(is_complete), &partition_fields);
    for (index, footer) in looked_at.iter().zip(&read) {
        // Of an integer column that another file has made a float, only the values tell.
        let file = &snapshot.files[*index];
        footer::check_fit(footer, &file_schema, store, &file.object)?;
        footer::check_agreement(footer, &partition_fields, &file.partition_values, store, &file.object)?;
        snapshot.files[*index].statistics = Some(Arc::new(footer::statistics(footer, &file_schema)?));
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
    /// Whether a difference is an error.
    is_strict: bool,
    /// Each column, with the file that it was first seen in and in how many files it is.
    columns: Vec<(Field, String, usize)>,
    /// Where a name is among the columns.
    places: HashMap<String, usize>,
    /// The first file.
    first: String,
    files: usize,
}

impl Merged {
    fn new(format: Format, is_strict: bool) -> Self {
        Self { format, is_strict, columns: Vec::new(), places: HashMap::new(), first: String::new(), files: 0 }
    }

    fn add(&mut self, location: &str, columns: &Fields) -> Result<()> {
        check_names(location, columns)?;
        let conflict = |reason: String| Err(Error::SchemaConflict { reason });
        if self.files == 0 {
            location.clone_into(&mut self.first);
        } else if self.is_strict {
            let missing = self.columns.iter().map(|(field, ..)| field.name()).find(|name| columns.find(name).is_none());
            let added = columns.iter().map(|field| field.name()).find(|name| !self.places.contains_key(*name));
            let without = missing.map(|name| (name, location, self.first.as_str()));
            if let Some((name, lacks, has)) = without.or(added.map(|name| (name, self.first.as_str(), location))) {
                return conflict(format!(
                    "column \"{name}\" is in {has} and not in {lacks}, and schema_policy is strict; rewrite one of them, or set it to all"
                ));
            }
        }
        for field in columns {
            match self.places.get(field.name()).map(|place| &mut self.columns[*place]) {
                None => {
                    self.places.insert(field.name().clone(), self.columns.len());
                    let field = Field::new(field.name(), field.data_type().clone(), field.is_nullable());
                    self.columns.push((field, location.to_owned(), 1));
                }
                Some((known, first, count)) => {
                    let is_same = known.data_type().equals_datatype(field.data_type());
                    let widened = widen_in(known.data_type(), field.data_type(), self.format);
                    let Some(data_type) = widened.filter(|_| is_same || !self.is_strict) else {
                        let hint = match self.is_strict {
                            true => "schema_policy is strict; rewrite one of them, or set it to all",
                            false => {
                                "no type holds both; rewrite one of them, declare the column's type, or keep them in two folders"
                            }
                        };
                        return conflict(format!(
                            "column \"{}\" is {} in {first} and {} in {location}: {hint}",
                            field.name(),
                            known.data_type(),
                            field.data_type()
                        ));
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
fn widen_in(a: &DataType, b: &DataType, format: Format) -> Option<DataType> {
    if !format.is_text() {
        return widen(a, b);
    }
    match (a, b) {
        (DataType::List(a), DataType::List(b)) => Some(DataType::List(widen_field(a, b, format)?)),
        (DataType::Struct(a), DataType::Struct(b)) => widen_struct(a, b, format).map(DataType::Struct),
        _ if a == b => Some(a.clone()),
        (DataType::Null, other) | (other, DataType::Null) => Some(other.clone()),
        (DataType::Int64, DataType::Float64) | (DataType::Float64, DataType::Int64) => Some(DataType::Float64),
        _ if format.is_delimited() => Some(DataType::Utf8),
        _ => None,
    }
}

fn widen_field(a: &Field, b: &Field, format: Format) -> Option<FieldRef> {
    let data_type = widen_in(a.data_type(), b.data_type(), format)?;
    Some(Arc::new(Field::new(a.name(), data_type, a.is_nullable() || b.is_nullable())))
}

/// The fields of both, by name.
fn widen_struct(a: &Fields, b: &Fields, format: Format) -> Option<Fields> {
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
        let schema = |name: &str, data_type| Fields::from(vec![Field::new(name, data_type, false)]);
        let merge = |format, parts: [(&str, DataType); 2]| {
            let mut merged = Merged::new(format, false);
            for (index, (name, data_type)) in parts.into_iter().enumerate() {
                merged.add(&format!("s3://b/{index}"), &schema(name, data_type))?;
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
        let wide = merge(Format::Parquet, [("a", DataType::Int32), ("a", DataType::Int64)]).unwrap();
        assert_eq!(columns(&wide), "a Int64");

        let twice = ["a", "b", "a"].map(|name| Field::new(name, DataType::Int64, false));
        let error =
            Merged::new(Format::Csv, false).add("s3://b/x", &twice.into_iter().collect()).unwrap_err().to_string();
        assert!(error.contains("s3://b/x has two columns \"a\""), "{error}");
    }
}
