//! [`Leaves`]: the partition folders of a table that is too large to be listed as a whole for each query.
//!
//! The names of the folders are listed level by level, the folders of a level in parallel: that gives every value of every
//! partition column as it is spelled. The objects in a folder are listed when a query wants it, neighbours together.
//! All of this is only done where the folders are regular; otherwise the table is listed as a whole, and the rules of
//! [`layout`](super::layout) say what is wrong with it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{Field, Fields};
use datafusion::common::ScalarValue;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::Mutex;

use super::layout::{self, Ignored, Layout, LayoutError, Rules};
use super::snapshot::{SnapshotFile, listed, not_a_table, typed};
use super::{TableOptions, partition};
use crate::error::Result;
use crate::format::FileType;
use crate::location::{S3Location, is_readable};
use crate::settings::SchemaPolicy;
use crate::store::{BucketStore, ListedObject};

/// Folders whose listing is worth a request of its own have at least so many objects.
const WORTH: usize = 10;

/// Above so many folders, those of the next level are not listed one by one.
const FOLDERS: usize = 1_000;

/// Objects on a page of a listing.
const PAGE: usize = 1_000;

const LISTINGS_IN_FLIGHT: usize = 64;

/// The innermost partition folders of a table, in order of their keys.
#[derive(Debug)]
pub(crate) struct Leaves {
    folder: S3Location,
    rules: Rules,
    file_type: FileType,
    columns: Vec<String>,
    /// The first data file, to compare others with.
    first: String,
    leaves: Vec<Leaf>,
    /// Objects in a leaf, about.
    objects_in_leaf: usize,
    /// Whether every store lists the leaves in this order: some go by the names of folders, without the `/`.
    is_ordered: bool,
    /// Held while objects are listed, so that no leaf is listed twice.
    listing: Mutex<()>,
}

#[derive(Debug)]
struct Leaf {
    location: S3Location,
    values: Vec<ScalarValue>,
    files: OnceLock<Arc<Vec<SnapshotFile>>>,
}

impl Leaves {
    /// The leaves of a table, and its partition columns, from the first page of its listing and what that page laid out.
    /// `None` where the folders are irregular, or hold so few objects that listing them one by one costs more.
    pub(super) async fn find(
        store: &BucketStore,
        folder: &S3Location,
        options: &TableOptions,
        page: &[ListedObject],
        laid_out: &Layout,
    ) -> Result<Option<(Self, Fields)>> {
        let (Some(file_type), Some(first)) = (laid_out.file_type, laid_out.files.first()) else { return Ok(None) };
        let columns = laid_out.partition_columns.clone();
        let objects = listed(folder, page);
        let mut counts = BTreeMap::<&str, usize>::new();
        for file in &laid_out.files {
            *counts.entry(parent(objects[file.index].key)).or_default() += 1;
        }
        let objects_in_leaf = laid_out.files.len() / counts.len().max(1);
        let is_regular = |leaf: &&str| leaf.split('/').count() == columns.len();
        // Where all files decide the schema, they are listed anyway.
        let is_whole = columns.is_empty()
            || options.rules.template.is_some()
            || (options.schema.is_none()
                && match options.schema_policy {
                    SchemaPolicy::All | SchemaPolicy::Strict | SchemaPolicy::Sample(_) | SchemaPolicy::Newest => true,
                    SchemaPolicy::Auto => file_type.format.is_delimited(),
                    SchemaPolicy::First => false,
                });
        if is_whole || objects_in_leaf < WORTH || !counts.keys().all(is_regular) {
            return Ok(None);
        }
        let Some(mut locations) = folders(store, folder, &columns).await? else { return Ok(None) };
        // As S3 orders them: by bytes, the `/` after a name included.
        locations.sort();
        let is_ordered =
            locations.is_sorted_by_key(|leaf| leaf.key().split('/').map(str::to_owned).collect::<Vec<_>>());
        let values: Vec<Vec<Option<String>>> =
            locations.iter().map(|leaf| partition::parse_folder(folder.relative(leaf).unwrap_or_default()).1).collect();
        let fields: Fields = columns
            .iter()
            .enumerate()
            .map(|(column, name)| -> Field {
                let values = values.iter().map(|values| values[column].as_deref());
                partition::column(name, values, options.schema.as_deref())
            })
            .collect();
        let leaf = |(location, values): (S3Location, Vec<Option<String>>)| {
            let values = typed(&location.to_string(), &values, &fields)?;
            Ok(Leaf { location, values, files: OnceLock::new() })
        };
        let leaves = locations.into_iter().zip(values).map(leaf).collect::<Result<_>>()?;
        let leaves = Self {
            folder: folder.clone(),
            rules: options.rules.clone(),
            file_type,
            columns,
            first: objects[first.index].key.to_owned(),
            leaves,
            objects_in_leaf,
            is_ordered,
            listing: Mutex::default(),
        };
        // The first page has shown all of its leaves but the last.
        let last = page.iter().max_by(|a, b| a.key.cmp(&b.key));
        let shown = last
            .filter(|_| is_ordered)
            .map_or(0, |last| leaves.leaves.partition_point(|leaf| !leaf.is_before_end(last)));
        leaves.fill(0..shown, page.to_vec())?;
        Ok(Some((leaves, fields)))
    }

    /// The partition values of each leaf.
    pub(super) fn values(&self) -> impl ExactSizeIterator<Item = &[ScalarValue]> + Clone {
        self.leaves.iter().map(|leaf| leaf.values.as_slice())
    }

    /// The number of data files that were listed so far.
    pub(super) fn file_count(&self) -> usize {
        self.leaves.iter().filter_map(|leaf| leaf.files.get()).map(|files| files.len()).sum()
    }

    /// The files of the last leaf.
    pub(super) async fn last(&self, store: &BucketStore) -> Result<Arc<Vec<SnapshotFile>>> {
        let mut wanted = vec![false; self.leaves.len()];
        if let Some(last) = wanted.last_mut() {
            *last = true;
        }
        Ok(self.files(store, &wanted).await?.pop().unwrap_or_default())
    }

    /// The files of the leaves that are wanted, in order. Costs one LIST for each 1,000 objects in neighbouring leaves that
    /// no query has wanted yet, in parallel.
    pub(super) async fn files(&self, store: &BucketStore, wanted: &[bool]) -> Result<Vec<Arc<Vec<SnapshotFile>>>> {
        let _listing = self.listing.lock().await;
        let missing = |index: &usize| wanted[*index] && self.leaves[*index].files.get().is_none();
        let mut runs: Vec<Range<usize>> = Vec::new();
        let most = if self.is_ordered { (PAGE / self.objects_in_leaf.max(1)).max(1) } else { 1 };
        for index in (0..self.leaves.len()).filter(missing) {
            match runs.last_mut() {
                Some(run) if run.end == index && run.len() < most => run.end += 1,
                _ => runs.push(index..index + 1),
            }
        }
        let listings: Vec<_> = runs.into_iter().map(|run| self.list(store, run)).collect();
        stream::iter(listings).buffer_unordered(LISTINGS_IN_FLIGHT).try_collect::<()>().await?;
        let leaves = self.leaves.iter().zip(wanted).filter(|(_, wanted)| **wanted);
        Ok(leaves.filter_map(|(leaf, _)| leaf.files.get().cloned()).collect())
    }

    /// Lists the objects of neighbouring leaves.
    async fn list(&self, store: &BucketStore, run: Range<usize>) -> Result<()> {
        let objects = match &self.leaves[run.clone()] {
            [] => Vec::new(),
            [leaf] => store.list_run(&leaf.location, leaf.location.key(), |_| false).await?,
            [first, .., last] => {
                store.list_run(&self.folder, first.location.key(), |object| !last.is_before_end(object)).await?
            }
        };
        self.fill(run, objects)
    }

    /// Lays out the objects of neighbouring leaves by the rules of the table.
    fn fill(&self, run: Range<usize>, mut objects: Vec<ListedObject>) -> Result<()> {
        objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let leaves = &self.leaves[run];
        let of_leaves = match (leaves.first(), leaves.last()) {
            (Some(first), Some(last)) => {
                let start = objects.partition_point(|object| object.key.as_str() < first.location.key());
                let end = objects.partition_point(|object| last.is_before_end(object));
                &objects[start..end.max(start)]
            }
            _ => return Ok(()),
        };
        let relative = listed(&self.folder, of_leaves);
        let failed = |error: LayoutError| Err(not_a_table(&self.folder, &error));
        let mut files = Vec::new();
        match layout::lay_out(&relative, &self.rules) {
            // Markers only.
            Err(LayoutError::Empty | LayoutError::OnlyIgnored { .. }) => {}
            // What no name tells is ignored beside files of the table.
            Ok(Layout { file_type: None, .. }) => {}
            Ok(laid_out) => {
                let key = |index: usize| relative[index].key.to_owned();
                let example = laid_out.files.first().map_or(0, |file| file.index);
                if let Some(found) = laid_out.file_type.filter(|found| *found != self.file_type) {
                    let first = (self.first.clone(), self.file_type);
                    return failed(LayoutError::MixedTypes { first, second: (key(example), found) });
                }
                if laid_out.partition_columns != self.columns {
                    let first = (self.first.clone(), self.columns.clone());
                    let second = (key(example), laid_out.partition_columns);
                    return failed(LayoutError::MixedPartitions { first, second });
                }
                files = laid_out.files.into_iter().map(|file| file.index).collect();
            }
            Err(error) => return failed(error),
        }
        files.sort_unstable();
        let mut files = files.into_iter().map(|index| &of_leaves[index]).peekable();
        for leaf in leaves {
            let mut found = Vec::new();
            while let Some(object) = files.next_if(|object| leaf.is_before_end(object)) {
                if !object.key.starts_with(leaf.location.key()) {
                    // A folder that came after the folders were listed.
                    continue;
                }
                found.extend(SnapshotFile::new(object, leaf.values.clone()));
            }
            leaf.files.set(Arc::new(found)).ok();
        }
        Ok(())
    }
}

impl Leaf {
    /// Whether an object comes before the end of this leaf, in the order of keys.
    fn is_before_end(&self, object: &ListedObject) -> bool {
        let key = object.key.as_str();
        key < self.location.key() || key.starts_with(self.location.key())
    }
}

/// The innermost folders for these partition columns. `None` where anything else lies between them, or where there are
/// too many.
async fn folders(store: &BucketStore, folder: &S3Location, columns: &[String]) -> Result<Option<Vec<S3Location>>> {
    let mut level = vec![folder.clone()];
    for column in columns {
        if level.len() > FOLDERS {
            return Ok(None);
        }
        let listings: Vec<_> = level.iter().map(|parent| store.list_folder(parent)).collect();
        let listings: Vec<_> = stream::iter(listings).buffered(LISTINGS_IN_FLIGHT).try_collect().await?;
        let mut next = Vec::new();
        for (parent, listing) in level.iter().zip(listings) {
            let is_data = |object: &ListedObject| {
                let key = object.key.strip_prefix(folder.key()).unwrap_or_default();
                matches!(layout::ignored(key, object.size), None | Some(Ignored::UnknownExtension))
            };
            if listing.objects.iter().any(is_data) {
                return Ok(None);
            }
            for child in listing.folders.iter().filter(|child| is_readable(child) && !layout::is_hidden(child)) {
                let (names, _) = partition::parse_folder(child);
                if names.as_slice() != std::slice::from_ref(column) {
                    return Ok(None);
                }
                next.push(parent.join(child).to_folder());
            }
        }
        level = next;
    }
    Ok(Some(level))
}

/// The folder of a key, without the `/` at its end.
fn parent(key: &str) -> &str {
    key.rsplit_once('/').map_or("", |(folder, _)| folder)
}
