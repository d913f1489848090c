//! [`S3Table`]: one table, opened: its files, its schema, and how DataFusion scans it.

mod head;
pub(crate) mod layout;
mod leaves;
mod partition;
mod schema;
mod snapshot;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{Fields, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::project_schema;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::prelude::SessionContext;
use glob::Pattern;
use object_store::path::Path;

pub(crate) use self::head::SchemaCache;
use self::head::Told;
use self::layout::Rules;
pub(crate) use self::partition::prune;
use self::schema::HeadLengths;
use self::snapshot::{Snapshot, SnapshotFile};
use crate::error::{Error, Result};
use crate::format::{FileType, Format};
use crate::location::S3Location;
use crate::scan::{FIRST_READ, FooterCache, InFlight, STATISTICS_BYTES, ScanFile, ScanTable, scan};
use crate::settings::{ArchivedObjects, CsvSettings, SchemaPolicy, TableSettings};
use crate::store::{BucketStore, ByteCache, End, ListedObject, Stores};

/// A table: one object, or the data files below a folder.
///
/// ```text
/// shop/
///   articles.parquet                      table articles
///   transactions/                         table transactions, partitioned by year and month
///     year=2024/month=1/part-0.parquet
///     year=2024/month=2/part-0.parquet
///     _SUCCESS                            ignored
/// ```
///
/// It holds one snapshot: the objects that were listed when it was opened, with sizes and etags. Every read says
/// If-Match, so an object that was replaced since is an error and never a wrong row. The connector opens a table anew when
/// its listing is older than [`ConnectorSettings::listing_ttl`](crate::ConnectorSettings::listing_ttl), and after
/// [`S3Connector::refresh`](crate::S3Connector::refresh). A table that a view or a prepared statement keeps is listed again
/// when it is planned for execution; where its columns have changed by then, that is an error.
///
/// Partition columns come after the columns of the files. Filters on them choose files before anything is read; all
/// other filters, projections and limits are pushed into DataFusion's own sources.
#[derive(Debug)]
pub struct S3Table {
    name: String,
    location: S3Location,
    snapshot: Snapshot,
    options: TableOptions,
    scan: ScanTable,
    /// When the listing of the snapshot began.
    listed_at: Instant,
    opener: Arc<Opener>,
    /// The same table with a later listing, for a view or a prepared statement that keeps this one.
    latest: tokio::sync::Mutex<Option<Arc<S3Table>>>,
}

/// What opening a table needs, shared by all tables of a connector.
#[derive(Debug)]
pub(crate) struct Opener {
    pub(crate) stores: Arc<Stores>,
    pub(crate) footers: Arc<FooterCache>,
    pub(crate) schemas: SchemaCache,
    pub(crate) root: Option<S3Location>,
    /// What the settings say of all tables.
    pub(crate) options: TableOptions,
    /// What they say of single ones.
    pub(crate) tables: BTreeMap<String, TableSettings>,
    pub(crate) listing_ttl: Duration,
    pub(crate) in_flight: InFlight,
}

/// What the settings say of a table.
#[derive(Debug, Clone, Default)]
pub(crate) struct TableOptions {
    pub(crate) rules: Rules,
    pub(crate) schema_policy: SchemaPolicy,
    /// The columns, where they are declared.
    pub(crate) schema: Option<SchemaRef>,
    pub(crate) csv: CsvSettings,
}

impl TableOptions {
    /// With what is said of one table.
    fn with(mut self, table: &TableSettings) -> Self {
        self.rules.subfolders = table.subfolders.unwrap_or(self.rules.subfolders);
        self.rules.archived_objects = table.archived_objects.unwrap_or(self.rules.archived_objects);
        self.rules.format = table.format;
        self.rules.template = table.template.as_ref().map(|template| template.split('/').map(str::to_owned).collect());
        // That they are patterns was checked with the settings.
        let patterns = |texts: &[String]| texts.iter().filter_map(|text| Pattern::new(text).ok()).collect();
        self.rules.include = patterns(&table.include);
        self.rules.exclude = patterns(&table.exclude);
        self.schema_policy = table.schema_policy.unwrap_or(self.schema_policy);
        self.schema = table.schema.clone();
        self.csv = table.csv;
        self
    }
}

/// An object below a table's folder, as the rules of the layout see it.
#[derive(Debug)]
pub(crate) struct Surveyed {
    pub(crate) object: ListedObject,
    /// Why it is not read; `None` for a data file.
    pub(crate) ignored: Option<String>,
}

impl Opener {
    /// All objects below a folder, and which of them a table there reads: one LIST for each 1,000.
    ///
    /// # Errors
    /// Those of a LIST. Where the objects do not make up a table, each of them says why.
    pub(crate) async fn survey(&self, folder: &S3Location) -> Result<Vec<Surveyed>> {
        let store = self.stores.bucket(folder.bucket())?;
        snapshot::survey(&store, folder, &self.options(folder).rules).await
    }

    /// Other names of the children of a folder, with what they stand for; without a folder those of full paths.
    pub(crate) fn aliases(&self, folder: Option<&S3Location>) -> BTreeMap<String, String> {
        let mut aliases = BTreeMap::new();
        for (key, table) in self.tables.iter().filter(|(_, table)| !table.aliases.is_empty()) {
            let location = match (S3Location::is_location(key), &self.root) {
                (true, _) => key.parse().ok(),
                (false, Some(root)) => Some(root.join(key)),
                (false, None) => None,
            };
            let stands_for = match (location, folder) {
                (Some(location), Some(folder)) => folder
                    .relative(&location)
                    .filter(|child| !child.trim_end_matches('/').contains('/'))
                    .map(str::to_owned),
                (Some(_), None) => Some(key.clone()),
                (None, _) => None,
            };
            aliases
                .extend(stands_for.iter().flat_map(|to| table.aliases.iter().map(|alias| (alias.clone(), to.clone()))));
        }
        aliases
    }

    /// What the settings say of the table at a location: by its path below the root, the same without the extensions that
    /// tell the format, or its full path.
    fn options(&self, location: &S3Location) -> TableOptions {
        let path = location.key().trim_end_matches('/');
        let below = self.root.as_ref().and_then(|root| root.relative(location)).map(|path| path.trim_end_matches('/'));
        let stem = below.and_then(|path| FileType::from_name(path)).map(|(_, stem)| stem);
        let is_full = |key: &str| {
            S3Location::is_location(key)
                && key.parse().is_ok_and(|named: S3Location| {
                    named.bucket() == location.bucket() && named.key().trim_end_matches('/') == path
                })
        };
        let named = |name: Option<&str>| name.and_then(|name| self.tables.get(name));
        let full = || self.tables.iter().find(|(key, _)| is_full(key)).map(|(_, table)| table);
        let table = named(below).or_else(|| named(stem)).or_else(full);
        table.map_or_else(|| self.options.clone(), |table| self.options.clone().with(table))
    }

    /// What lies at a location that no listing has shown, by reading it: one GET, whose bytes serve the opening. `None`
    /// where there is no such object. Where that is not to be had, by asking a listing.
    pub(crate) async fn find(&self, location: &S3Location) -> Result<Option<ListedObject>> {
        let store = self.stores.bucket(location.bucket())?;
        let (end, length) = match FileType::from_name(location.key()) {
            Some((FileType { format: Format::Parquet, .. }, _)) => (End::End, FIRST_READ),
            Some((FileType { format, .. }, _)) => (End::Start, head::head_length(format, false)),
            None => return store.find_object(location).await,
        };
        if let Ok(path) = Path::parse(location.key())
            && let Ok(found) = store.reads().first(&path, end, length).await
        {
            return Ok(found.map(ListedObject::from));
        }
        store.find_object(location).await
    }

    /// Whether a listing that began then is not older than the time to live.
    pub(crate) fn is_believed(&self, listed_at: Instant) -> bool {
        listed_at.elapsed() < self.listing_ttl
    }

    /// Opens the table of an object, by asking a listing for it.
    pub(crate) async fn open_object(self: &Arc<Self>, name: &str, location: &S3Location) -> Result<S3Table> {
        let now = Instant::now();
        match self.stores.bucket(location.bucket())?.find_object(location).await? {
            Some(object) => self.open(name, location, Some((object, now))).await,
            None => Err(Error::NotATable {
                location: location.to_string(),
                reason: "nothing lies there any more; check what has removed it, or refresh the connector".to_owned(),
            }),
        }
    }

    /// Opens the table at a location: lists it where it is a folder, and infers its schema.
    ///
    /// `object` is what a listing said of a location that is an object, and when that listing began.
    pub(crate) async fn open(
        self: &Arc<Self>,
        name: &str,
        location: &S3Location,
        object: Option<(ListedObject, Instant)>,
    ) -> Result<S3Table> {
        let store = self.stores.bucket(location.bucket())?;
        let options = self.options(location);
        let (mut snapshot, listed_at) = match object {
            Some((object, listed_at)) => (Snapshot::of_object(location, &object, &options.rules)?, listed_at),
            None => {
                let now = Instant::now();
                (Snapshot::of_folder(&store, location, &options).await?, now)
            }
        };
        let inferred = schema::infer(&store, &self.footers, &self.schemas, &options, &mut snapshot).await?;
        let schema = TableSchema::builder(inferred.file_schema)
            .with_table_partition_cols(snapshot.partition_fields.clone())
            .build();
        let scan = ScanTable {
            store,
            footers: Arc::clone(&self.footers),
            schema,
            file_type: inferred.file_type,
            is_complete: inferred.is_complete,
            in_flight: self.in_flight,
            statistics: ByteCache::new(STATISTICS_BYTES)?,
        };
        Ok(S3Table {
            name: name.to_owned(),
            location: location.clone(),
            snapshot,
            options,
            scan,
            listed_at,
            opener: Arc::clone(self),
            latest: tokio::sync::Mutex::default(),
        })
    }
}

/// The error of a query that wants a file which S3 does not give.
fn archived(store: &BucketStore, file: &SnapshotFile) -> Error {
    Error::Archived {
        location: head::location(store, &file.object),
        storage_class: file.archived.clone().unwrap_or_default(),
    }
}

impl S3Table {
    /// The name that the table was first opened by: its table name, a full name or a full path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the table lies: an object, or a folder that ends in `/`.
    pub fn location(&self) -> &S3Location {
        &self.location
    }

    /// The Arrow schema: the columns of the files, then the partition columns.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(self.scan.schema.table_schema())
    }

    /// The columns, each with name, type and whether it may be NULL.
    pub fn columns(&self) -> &Fields {
        self.scan.schema.table_schema().fields()
    }

    /// When the listing of its snapshot began.
    pub(crate) fn listed_at(&self) -> Instant {
        self.listed_at
    }

    /// The same table by a later listing, where a plan that was kept is executed after its time to live.
    async fn relisted(&self) -> Result<Option<Arc<Self>>> {
        /// More than planning takes: a query that has just listed does not list twice.
        const PLANNING: Duration = Duration::from_secs(1);
        let is_current = |at: Instant| at.elapsed() < self.opener.listing_ttl.saturating_add(PLANNING);
        if is_current(self.listed_at) {
            return Ok(None);
        }
        let mut latest = self.latest.lock().await;
        if latest.as_ref().is_none_or(|table| !is_current(table.listed_at)) {
            let table = if self.location.is_folder() {
                self.opener.open(&self.name, &self.location, None).await?
            } else {
                self.opener.open_object(&self.name, &self.location).await?
            };
            *latest = Some(Arc::new(table));
        }
        match &*latest {
            Some(table) if table.schema() != self.schema() => Err(Error::SchemaConflict {
                reason: format!(
                    "the columns of {} have changed since the query was planned; plan it again, or create the view anew",
                    self.location
                ),
            }),
            latest => Ok(latest.clone()),
        }
    }

    /// The number of data files that are known: all of them, or of a table of very many those in the partition folders that
    /// a query has wanted so far.
    pub fn file_count(&self) -> usize {
        self.snapshot.leaves.as_ref().map_or(self.snapshot.files.len(), leaves::Leaves::file_count)
    }

    /// The format of its files, and how they are compressed.
    pub(crate) fn format(&self) -> String {
        self.scan.file_type.to_string()
    }

    /// How many files it has, and their bytes. `None` where only some of them were listed.
    pub(crate) fn total(&self) -> Option<(usize, u64)> {
        let files = self.snapshot.leaves.is_none().then_some(&self.snapshot.files)?;
        Some((files.len(), files.iter().map(|file| file.object.size).sum()))
    }

    /// The first `n` rows that a scan yields, in batches; fewer where the table has fewer.
    ///
    /// # Errors
    /// As a query of the table: [`Error::DataFusion`] with the cause.
    pub async fn head(self: &Arc<Self>, n: usize) -> Result<Vec<RecordBatch>> {
        let context = SessionContext::new();
        let rows = context.read_table(Arc::clone(self) as Arc<dyn TableProvider>)?.limit(0, Some(n))?;
        Ok(rows.collect().await?)
    }
}

#[async_trait]
impl TableProvider for S3Table {
    fn schema(&self) -> SchemaRef {
        self.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        match self.relisted().await? {
            Some(latest) => latest.scan_snapshot(state, projection, filters, limit).await,
            None => self.scan_snapshot(state, projection, filters, limit).await,
        }
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        let columns = &self.snapshot.partition_fields;
        let support = |filter: &&Expr| {
            if partition::is_decided(filter, columns) {
                TableProviderFilterPushDown::Exact
            } else {
                TableProviderFilterPushDown::Inexact
            }
        };
        Ok(filters.iter().map(support).collect())
    }
}

impl S3Table {
    async fn scan_snapshot(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let columns = &self.snapshot.partition_fields;
        let decided: Vec<&Expr> = filters.iter().filter(|filter| partition::is_decided(filter, columns)).collect();
        // The files of leaves, which are in none of the snapshot's own.
        let listed;
        let files: Vec<&SnapshotFile> = match &self.snapshot.leaves {
            Some(leaves) => {
                let wanted = partition::prune(state, columns, leaves.values(), &decided)?;
                listed = leaves.files(&self.scan.store, &wanted).await?;
                listed.iter().flat_map(|files| files.iter()).collect()
            }
            None => {
                let values = self.snapshot.files.iter().map(|file| file.partition_values.as_slice());
                let wanted = partition::prune(state, columns, values, &decided)?;
                self.snapshot.files.iter().zip(wanted).filter(|(_, wanted)| *wanted).map(|(file, _)| file).collect()
            }
        };
        let is_rejected = |file: &&&SnapshotFile| {
            file.archived.is_some() && self.options.rules.archived_objects == ArchivedObjects::Reject
        };
        if let Some(file) = files.iter().find(is_rejected) {
            return Err(archived(&self.scan.store, file).into());
        }
        let (files, told) = match self.scan.file_type.format {
            Format::Parquet => (files, Vec::new()),
            _ => self.tell(files, limit.filter(|limit| *limit <= state.config().batch_size())).await?,
        };
        let shapes = told.iter().map(|told| Some(&told.shape)).chain(std::iter::repeat(None));
        let files: Vec<ScanFile<'_>> = files
            .into_iter()
            .zip(shapes)
            .map(|(file, shape)| ScanFile {
                object: &file.object,
                partition_values: &file.partition_values,
                statistics: file.statistics.as_ref(),
                shape,
            })
            .collect();
        if files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(project_schema(&self.schema(), projection)?)));
        }
        scan(state, &self.scan, &files, projection, filters, limit)
    }

    /// What files other than Parquet say of how they are read, and whether they fit the table. Where `enough` records will
    /// do, only of the first files that have as many.
    async fn tell<'a>(
        &self,
        files: Vec<&'a SnapshotFile>,
        enough: Option<usize>,
    ) -> Result<(Vec<&'a SnapshotFile>, Vec<Arc<Told>>)> {
        let (opener, file_type, csv) = (&self.opener, self.scan.file_type, self.options.csv);
        let schema = self.scan.schema.file_schema();
        // Without a header, names that are declared count from the left.
        let is_named = csv.header == Some(false) && self.options.schema.is_some();
        let lengths = HeadLengths::new(&self.scan.store, file_type.format, &files);
        let (mut told, mut records) = (Vec::with_capacity(files.len()), 0);
        let mut step = if enough.is_some() { 1 } else { files.len() };
        while told.len() < files.len() && enough.is_none_or(|enough| records < enough) {
            let next = &files[told.len()..(told.len() + step).min(files.len())];
            let next = schema::tell(&self.scan.store, &opener.schemas, csv, file_type, lengths, next).await?;
            records += next.iter().map(|told| told.records).sum::<usize>();
            told.extend(next.into_iter().map(|told| if is_named { told.named(schema) } else { told }));
            step *= 2;
        }
        if !self.scan.is_complete {
            for told in &told {
                schema::check_fit(told, schema, file_type.format, self.options.schema.is_some())?;
            }
        }
        let wanted = told.len();
        Ok((files.into_iter().take(wanted).collect(), told))
    }
}
