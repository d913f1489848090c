//! [`S3Table`]: one table, opened: its files, its schema, and how DataFusion scans it.

mod head;
pub(crate) mod layout;
mod leaves;
pub(crate) mod metadata;
mod opener;
mod partition;
mod schema;
mod snapshot;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{Fields, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::project_schema;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::prelude::SessionContext;

pub(crate) use self::head::SchemaCache;
use self::head::Told;
use self::metadata::MetadataColumns;
pub(crate) use self::opener::{Opener, Surveyed, TableOptions};
pub(crate) use self::partition::prune;
use self::schema::HeadLengths;
use self::snapshot::{Snapshot, SnapshotFile};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::location::S3Location;
use crate::scan::{ScanFile, ScanTable, scan};
use crate::settings::ArchivedObjects;
use crate::store::BucketStore;

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
            Some(latest) => latest.scan_snapshot(None, state, projection, filters, limit).await,
            None => self.scan_snapshot(None, state, projection, filters, limit).await,
        }
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        Ok(pushdown(&self.snapshot.partition_fields, filters))
    }
}

/// Filters on columns that each file has one value of are decided by choosing files.
fn pushdown(columns: &Fields, filters: &[&Expr]) -> Vec<TableProviderFilterPushDown> {
    let support = |filter: &&Expr| {
        if partition::is_decided(filter, columns) {
            TableProviderFilterPushDown::Exact
        } else {
            TableProviderFilterPushDown::Inexact
        }
    };
    filters.iter().map(support).collect()
}

impl S3Table {
    async fn scan_snapshot(
        &self,
        metadata: Option<&MetadataColumns>,
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
        let schema = metadata.map_or(&self.scan.schema, |metadata| &metadata.schema);
        let (files, values) = match metadata {
            None => (files, None),
            Some(metadata) => {
                let values: Vec<_> = files.iter().map(|file| metadata.values(self, file)).collect();
                let columns = schema.table_partition_cols();
                let is_decided = |filter: &&Expr| partition::is_decided(filter, columns);
                let decided: Vec<&Expr> = filters.iter().filter(is_decided).collect();
                let wanted = partition::prune(state, columns, values.iter().map(Vec::as_slice), &decided)?;
                let chosen = files.into_iter().zip(values).zip(wanted).filter(|(_, wanted)| *wanted);
                let (files, values): (Vec<_>, Vec<_>) = chosen.map(|(file, _)| file).unzip();
                (files, Some(values))
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
            .enumerate()
            .map(|(index, (file, shape))| ScanFile {
                object: &file.object,
                partition_values: values.as_ref().map_or(&file.partition_values, |values| &values[index]),
                statistics: file.statistics.as_ref(),
                shape,
            })
            .collect();
        if files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(project_schema(schema.table_schema(), projection)?)));
        }
        scan(state, &self.scan, schema, &files, projection, filters, limit)
    }

    /// What files other than Parquet say of how they are read, and whether they fit the table. Where `enough` records will
    /// do, only of the first files that have as many.
    async fn tell<'a>(
        &self,
        files: Vec<&'a SnapshotFile>,
        enough: Option<usize>,
    ) -> Result<(Vec<&'a SnapshotFile>, Vec<Arc<Told>>)> {
        let (opener, file_type, csv) = (&self.opener, self.scan.file_type, &self.options.csv);
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
