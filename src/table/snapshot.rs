//! [`Snapshot`]: the objects of one table, as one listing showed them.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{Field, Fields};
use datafusion::common::{ScalarValue, Statistics};
use object_store::ObjectMeta;

use super::head::Told;
use super::layout::{self, Ignored, Layout, LayoutError, Listed, Rules};
use super::leaves::Leaves;
use super::{Surveyed, TableOptions, partition};
use crate::error::{Error, Result};
use crate::format::FileType;
use crate::location::S3Location;
use crate::store::{BucketStore, ListedObject};

/// The data files of a table, in order of their keys.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The type of all files; `None` where only their first bytes can tell.
    pub(crate) file_type: Option<FileType>,
    /// The partition columns, outermost folder first.
    pub(crate) partition_fields: Fields,
    /// All files; of a table whose folders are listed when they are wanted, those that decide its schema.
    pub(crate) files: Vec<SnapshotFile>,
    /// The folders that are listed when they are wanted.
    pub(crate) leaves: Option<Leaves>,
}

/// One data file of a snapshot.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotFile {
    pub(crate) object: ObjectMeta,
    pub(crate) partition_values: Vec<ScalarValue>,
    /// Set where opening the table read the file's footer.
    pub(crate) statistics: Option<Arc<Statistics>>,
    /// Set where opening the table read the head of a file other than Parquet.
    pub(crate) told: Option<Arc<Told>>,
    /// The storage class of a file that S3 only gives after it was restored.
    pub(crate) archived: Option<String>,
}

impl SnapshotFile {
    /// A data file. `None` where its key cannot be read, which the rules of the layout exclude.
    pub(crate) fn new(object: &ListedObject, partition_values: Vec<ScalarValue>) -> Option<Self> {
        let archived = object.archived().map(str::to_owned);
        Some(Self { object: object.meta()?, partition_values, statistics: None, told: None, archived })
    }
}

impl Snapshot {
    /// A table of one object that a listing has shown. Costs nothing.
    pub(crate) fn of_object(location: &S3Location, object: &ListedObject, rules: &Rules) -> Result<Self> {
        if object.size == 0 {
            let reason = "it is empty, 0 bytes; write it again, or remove it".to_owned();
            return Err(Error::NotATable { location: location.to_string(), reason });
        }
        let name = location.key().rsplit('/').next().unwrap_or_default();
        let file_type = rules.file_type(name);
        let files: Vec<_> = SnapshotFile::new(object, Vec::new()).into_iter().collect();
        if files.is_empty() {
            let reason = format!("{}; copy it to another key", Ignored::UnreadableKey);
            return Err(Error::NotATable { location: location.to_string(), reason });
        }
        Ok(Self { file_type, partition_fields: Fields::empty(), files, leaves: None })
    }

    /// A table of all data files below a folder: one LIST for each 1,000 objects. Where these are more, and lie in regular
    /// partition folders with many in each, only the folders are listed, and the objects when they are wanted.
    pub(crate) async fn of_folder(store: &BucketStore, folder: &S3Location, options: &TableOptions) -> Result<Self> {
        let rules = &options.rules;
        let mut objects = Vec::new();
        let mut pages = store.list_objects(folder);
        while let Some(page) = pages.next().await? {
            let is_first = objects.is_empty();
            let is_truncated = page.continuation_token.is_some();
            objects.extend(page.objects);
            if is_first && is_truncated {
                // A folder of folders may hold millions of objects: its first page shows that it is none of ours.
                match layout::lay_out(&listed(folder, &objects), rules) {
                    Err(LayoutError::Namespace { .. }) => return Err(namespace(store, folder).await?),
                    Err(error @ LayoutError::Lake { .. }) => return Err(not_a_table(folder, &error)),
                    Ok(laid_out) => {
                        let found = Leaves::find(store, folder, options, &objects, &laid_out).await?;
                        if let Some((leaves, partition_fields)) = found {
                            return Self::of_leaves(store, &objects, &laid_out, leaves, partition_fields).await;
                        }
                    }
                    Err(_) => {}
                }
            }
        }
        let laid_out =
            layout::lay_out(&listed(folder, &objects), rules).map_err(|error| not_a_table(folder, &error))?;

        let partition_fields: Fields = laid_out
            .partition_columns
            .iter()
            .enumerate()
            .map(|(column, name)| -> Field {
                let values = laid_out.files.iter().map(|file| file.partition_values[column].as_deref());
                partition::column(name, values, options.schema.as_deref())
            })
            .collect();
        let location = |object: &ListedObject| S3Location::new(folder.bucket(), &object.key).to_string();
        let mut files = Vec::with_capacity(laid_out.files.len());
        for file in &laid_out.files {
            let object = &objects[file.index];
            files.extend(SnapshotFile::new(
                object,
                typed(&location(object), &file.partition_values, &partition_fields)?,
            ));
        }
        Ok(Self { file_type: laid_out.file_type, files, partition_fields, leaves: None })
    }
}

impl Snapshot {
    /// A table of partition folders. The first file by key and the newest of the last folder decide its schema.
    async fn of_leaves(
        store: &BucketStore,
        page: &[ListedObject],
        laid_out: &Layout,
        leaves: Leaves,
        partition_fields: Fields,
    ) -> Result<Self> {
        let last = leaves.last(store).await?;
        let newest = last.iter().max_by_key(|file| (file.object.last_modified, &file.object.location));
        let newest = newest.map(|file| SnapshotFile { partition_values: Vec::new(), ..file.clone() });
        let first = laid_out.files.first().and_then(|file| SnapshotFile::new(&page[file.index], Vec::new()));
        let files = first.into_iter().chain(newest).collect();
        Ok(Self { file_type: laid_out.file_type, partition_fields, files, leaves: Some(leaves) })
    }
}

/// All objects below a folder, each with the rule by which it is not read.
pub(super) async fn survey(store: &BucketStore, folder: &S3Location, rules: &Rules) -> Result<Vec<Surveyed>> {
    let mut objects = Vec::new();
    let mut pages = store.list_objects(folder);
    while let Some(page) = pages.next().await? {
        objects.extend(page.objects);
    }
    let relative = listed(folder, &objects);
    let ignored = match layout::lay_out(&relative, rules) {
        Ok(laid_out) => {
            let used: HashSet<usize> = laid_out.files.iter().map(|file| file.index).collect();
            let reason = |index: usize| {
                let reason = relative[index].ignored(rules).unwrap_or(Ignored::UnknownExtension);
                (!used.contains(&index)).then(|| reason.to_string())
            };
            (0..objects.len()).map(reason).collect::<Vec<_>>()
        }
        Err(error) => {
            let error = error.reason(&folder.to_string());
            let reason =
                |object: &Listed<'_>| object.ignored(rules).map_or_else(|| error.clone(), |reason| reason.to_string());
            relative.iter().map(reason).map(Some).collect()
        }
    };
    Ok(objects.into_iter().zip(ignored).map(|(object, ignored)| Surveyed { object, ignored }).collect())
}

/// The partition values of what lies at a key, in the types of their columns.
pub(super) fn typed(key: &str, values: &[Option<String>], columns: &Fields) -> Result<Vec<ScalarValue>> {
    let typed = |(value, column): (&Option<String>, &Arc<Field>)| {
        partition::to_scalar(value.as_deref(), column.data_type()).ok_or_else(|| Error::NotATable {
            location: key.to_owned(),
            reason: format!(
                "\"{}\" is no {}, as the partition column \"{}\" is declared; declare it as text, or move what lies there",
                value.as_deref().unwrap_or_default(),
                column.data_type(),
                column.name()
            ),
        })
    };
    values.iter().zip(columns).map(typed).collect()
}

/// The error for a folder of folders, from the first of these: Iceberg's mark comes after all of its data.
async fn namespace(store: &BucketStore, folder: &S3Location) -> Result<Error> {
    let folders = store.list_first_children(folder).await?.folders;
    let error = if folders.contains("metadata") && folders.contains("data") {
        LayoutError::Lake { format: "Iceberg", marker: "metadata/ beside data/".to_owned() }
    } else {
        let is_shown = |folder: &String| !layout::is_hidden(folder);
        LayoutError::Namespace { folders: folders.into_iter().filter(is_shown).collect() }
    };
    Ok(not_a_table(folder, &error))
}

pub(super) fn not_a_table(folder: &S3Location, error: &LayoutError) -> Error {
    Error::NotATable { location: folder.to_string(), reason: error.reason(&folder.to_string()) }
}

/// The objects as the layout sees them, their keys relative to the folder.
pub(super) fn listed<'a>(folder: &S3Location, objects: &'a [ListedObject]) -> Vec<Listed<'a>> {
    objects
        .iter()
        .map(|object| Listed {
            key: object.key.strip_prefix(folder.key()).unwrap_or_default(),
            size: object.size,
            is_archived: object.archived().is_some(),
        })
        .collect()
}
