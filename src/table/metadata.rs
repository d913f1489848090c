//! [`MetadataTable`]: a table with columns that tell where each row comes from.
//!
//! DataFusion expands `*` to every column of a provider's schema, and has no columns that are only there when they are
//! named. So `events` has none of these, and `events$metadata` has them beside its own.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::snapshot::SnapshotFile;
use super::{S3Table, head};

/// What the name of a table ends in that is wanted with metadata columns.
pub(crate) const SUFFIX: &str = "$metadata";

/// The metadata columns of a table: those whose names its own columns leave free.
#[derive(Debug)]
pub(super) struct MetadataColumns {
    /// The table's schema with them at its end.
    pub(super) schema: TableSchema,
    columns: Vec<Column>,
}

#[derive(Debug, Clone, Copy)]
enum Column {
    Path,
    File,
    Size,
    LastModified,
    ETag,
}

impl Column {
    const ALL: [Self; 5] = [Self::Path, Self::File, Self::Size, Self::LastModified, Self::ETag];

    fn field(self) -> FieldRef {
        let utc = || DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        Arc::new(match self {
            Self::Path => Field::new("_path", DataType::Utf8View, false),
            Self::File => Field::new("_file", DataType::Utf8View, false),
            Self::Size => Field::new("_size", DataType::Int64, false),
            Self::LastModified => Field::new("_last_modified", utc(), false),
            Self::ETag => Field::new("_etag", DataType::Utf8View, true),
        })
    }

    fn value(self, table: &S3Table, file: &SnapshotFile) -> ScalarValue {
        let text = |text: Option<&str>| ScalarValue::Utf8View(text.map(str::to_owned));
        let object = &file.object;
        match self {
            Self::Path => text(Some(&head::location(&table.scan.store, object))),
            Self::File => text(object.location.filename()),
            Self::Size => ScalarValue::Int64(i64::try_from(object.size).ok()),
            Self::LastModified => {
                ScalarValue::TimestampMillisecond(Some(object.last_modified.timestamp_millis()), Some("UTC".into()))
            }
            Self::ETag => text(object.e_tag.as_deref()),
        }
    }
}

impl MetadataColumns {
    fn new(table: &TableSchema) -> Self {
        let is_free = |column: &Column| table.table_schema().index_of(column.field().name()).is_err();
        let columns: Vec<Column> = Column::ALL.into_iter().filter(is_free).collect();
        let added = columns.iter().map(|column| column.field());
        let folders: Fields = table.table_partition_cols().iter().cloned().chain(added).collect();
        let schema = TableSchema::builder(Arc::clone(table.file_schema())).with_table_partition_cols(folders).build();
        Self { schema, columns }
    }

    /// The partition values of a file, then those of the metadata columns.
    pub(super) fn values(&self, table: &S3Table, file: &SnapshotFile) -> Vec<ScalarValue> {
        let metadata = self.columns.iter().map(|column| column.value(table, file));
        file.partition_values.iter().cloned().chain(metadata).collect()
    }
}

/// A table with its metadata columns. Filters on them choose files before anything is read.
#[derive(Debug)]
pub(crate) struct MetadataTable {
    table: Arc<S3Table>,
    columns: MetadataColumns,
}

impl MetadataTable {
    pub(crate) fn new(table: Arc<S3Table>) -> Self {
        let columns = MetadataColumns::new(&table.scan.schema);
        Self { table, columns }
    }
}

#[async_trait]
impl TableProvider for MetadataTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.columns.schema.table_schema())
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
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let latest = self.table.relisted().await?;
        let table = latest.as_ref().unwrap_or(&self.table);
        table.scan_snapshot(Some(&self.columns), state, projection, filters, limit).await
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(super::pushdown(self.columns.schema.table_partition_cols(), filters))
    }
}
