//! [`InformationSchema`]: what was found under a root and why, as tables.
//!
//! | table | rows | costs |
//! |---|---|---|
//! | `tables` | a table each, with what is known of it so far | nothing |
//! | `details` | the same, each table opened; one that cannot be is a row with its error | what opening them costs, many at a time |
//! | `objects` | an object each: used, or ignored and why | the listing of each table that is asked for by `table_name` |

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Builder, StringBuilder, TimestampMillisecondBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{SchemaProvider, Session, TableProvider};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use datafusion::scalar::ScalarValue;
use futures::{StreamExt, stream};

use super::schema::{Entry, S3SchemaProvider};
use crate::format::FileType;
use crate::store::ListedObject;
use crate::table::{Opener, S3Table, Surveyed, prune};

/// Tables that are listed or opened at the same time.
const IN_FLIGHT: usize = 64;

/// What was found for some schemas of tables.
#[derive(Debug)]
pub(crate) struct InformationSchema {
    /// The schemas and their names.
    schemas: Vec<(String, Arc<S3SchemaProvider>)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Tables,
    Details,
    Objects,
}

impl Kind {
    const ALL: [(&str, Self); 3] = [("details", Self::Details), ("objects", Self::Objects), ("tables", Self::Tables)];

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    fn schema(self) -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, true);
        let number = |name: &str| Field::new(name, DataType::Int64, true);
        let names = [text("table_schema"), text("table_name")];
        let rest = match self {
            Self::Tables | Self::Details => vec![
                text("location"),
                text("kind"),
                text("format"),
                number("files"),
                number("bytes"),
                text("status"),
                text("error"),
            ],
            Self::Objects => vec![
                text("key"),
                number("size"),
                Field::new("last_modified", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
                text("etag"),
                text("storage_class"),
                text("status"),
                text("reason"),
            ],
        };
        Arc::new(Schema::new(names.into_iter().chain(rest).collect::<Vec<_>>()))
    }
}

impl InformationSchema {
    pub(super) fn new(schemas: Vec<(String, Arc<S3SchemaProvider>)>) -> Self {
        Self { schemas }
    }
}

#[async_trait]
impl SchemaProvider for InformationSchema {
    fn table_names(&self) -> Vec<String> {
        Kind::ALL.map(|(name, _)| name.to_owned()).into()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let table = |kind| Arc::new(Report { kind, schemas: self.schemas.clone() }) as Arc<dyn TableProvider>;
        Ok(Kind::named(name).map(table))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        Ok(Kind::named(name).map(|_| TableType::View))
    }

    fn table_exist(&self, name: &str) -> bool {
        Kind::named(name).is_some()
    }
}

/// One table of the report.
#[derive(Debug)]
struct Report {
    kind: Kind,
    schemas: Vec<(String, Arc<S3SchemaProvider>)>,
}

#[async_trait]
impl TableProvider for Report {
    fn schema(&self) -> SchemaRef {
        self.kind.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    /// Plans only: what the report costs is paid when it is executed, and for those tables only whose names pass the filters.
    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.schema();
        let by_name: Vec<&Expr> = filters
            .iter()
            .filter(|filter| filter.column_refs().iter().all(|column| column.name.starts_with("table_")))
            .filter(|filter| !filter.column_refs().is_empty() && !filter.is_volatile())
            .collect();
        let mut sections = Vec::new();
        for (schema_name, tables) in &self.schemas {
            let entries = tables.entries();
            let name = |name: Option<&str>| {
                [Some(schema_name.as_str()), name].map(|text| ScalarValue::Utf8(text.map(str::to_owned)))
            };
            // What is no table has no name.
            let names: Vec<[ScalarValue; 2]> =
                entries.iter().map(|entry| name(Some(&entry.name))).chain([name(None)]).collect();
            let columns = schema.fields().iter().take(2).cloned().collect();
            let wanted = prune(state, &columns, names.iter().map(|names| names.as_slice()), &by_name)?;
            let names_wanted = entries.iter().zip(&wanted).filter(|(_, wanted)| **wanted);
            let names = names_wanted.map(|(entry, _)| entry.name.clone()).collect();
            sections.push(Section {
                kind: self.kind,
                schema: Arc::clone(&schema),
                schema_name: schema_name.clone(),
                tables: Arc::clone(tables),
                names,
                with_others: wanted.last() == Some(&true),
            });
        }
        let partitions = sections.into_iter().map(|section| Arc::new(section) as Arc<dyn PartitionStream>).collect();
        StreamingTable::try_new(schema, partitions)?.scan(state, projection, &[], limit).await
    }
}

/// The rows for one schema of tables.
#[derive(Debug, Clone)]
struct Section {
    kind: Kind,
    schema: SchemaRef,
    schema_name: String,
    tables: Arc<S3SchemaProvider>,
    /// The tables that are wanted.
    names: BTreeSet<String>,
    /// Whether what is no table is wanted, too.
    with_others: bool,
}

impl PartitionStream for Section {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let section = self.clone();
        let batches = stream::once(async move { stream::iter(section.batches().await) }).flatten();
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

impl Section {
    async fn batches(self) -> Vec<Result<RecordBatch>> {
        let entries: Vec<Entry> =
            self.tables.entries().into_iter().filter(|entry| self.names.contains(&entry.name)).collect();
        let opener = Arc::clone(self.tables.opener());
        match self.kind {
            Kind::Tables => vec![self.tables_batch(entries.iter().map(Row::known))],
            Kind::Details => {
                let opened = self.tables.open_all(entries.iter().map(|entry| entry.name.clone()).collect()).await;
                let rows = entries.iter().zip(opened).map(|(entry, opened)| match opened {
                    Ok(table) => Row::opened(entry, &table),
                    Err(error) => Row { status: "error", error: Some(error.to_string()), ..Row::known(entry) },
                });
                vec![self.tables_batch(rows)]
            }
            Kind::Objects => {
                let others = self.with_others.then(|| self.others_batch());
                let listings: Vec<_> = entries.into_iter().map(|entry| self.objects_batch(&opener, entry)).collect();
                let mut batches: Vec<Result<RecordBatch>> = stream::iter(listings).buffered(IN_FLIGHT).collect().await;
                batches.extend(others);
                batches
            }
        }
    }

    fn tables_batch(&self, rows: impl Iterator<Item = Row>) -> Result<RecordBatch> {
        let mut texts: [StringBuilder; 7] = Default::default();
        let mut numbers: [Int64Builder; 2] = Default::default();
        for row in rows {
            let values = [
                Some(self.schema_name.as_str()),
                Some(&row.name),
                Some(&row.location),
                Some(row.kind),
                row.format.as_deref(),
                Some(row.status),
                row.error.as_deref(),
            ];
            texts.iter_mut().zip(values).for_each(|(column, value)| column.append_option(value));
            numbers.iter_mut().zip([row.files, row.bytes]).for_each(|(column, value)| column.append_option(value));
        }
        let mut texts = texts.into_iter().map(|mut column| Arc::new(column.finish()) as ArrayRef);
        let mut columns: Vec<ArrayRef> = texts.by_ref().take(5).collect();
        columns.extend(numbers.into_iter().map(|mut column| Arc::new(column.finish()) as ArrayRef));
        columns.extend(texts);
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// The objects of a table, by a listing of its own.
    async fn objects_batch(&self, opener: &Opener, entry: Entry) -> Result<RecordBatch> {
        let surveyed = match entry.object {
            Some(object) => Ok(vec![Surveyed { object, ignored: None }]),
            None => opener.survey(&entry.location).await,
        };
        match surveyed {
            Ok(objects) => {
                let rows = objects.iter().map(|surveyed| {
                    let status = if surveyed.ignored.is_some() { "ignored" } else { "used" };
                    (Some(&surveyed.object), surveyed.object.key.as_str(), status, surveyed.ignored.as_deref())
                });
                self.rows_of_objects(Some(&entry.name), rows)
            }
            Err(error) => {
                let error = error.to_string();
                let row = (None, entry.location.key(), "error", Some(error.as_str()));
                self.rows_of_objects(Some(&entry.name), std::iter::once(row))
            }
        }
    }

    /// What lies beside the tables.
    fn others_batch(&self) -> Result<RecordBatch> {
        let others = self.tables.ignored();
        let rows = others
            .iter()
            .map(|(location, object, reason)| (object.as_ref(), location.key(), "ignored", Some(reason.as_str())));
        self.rows_of_objects(None, rows)
    }

    fn rows_of_objects<'a>(
        &self,
        table: Option<&str>,
        rows: impl Iterator<Item = (Option<&'a ListedObject>, &'a str, &'a str, Option<&'a str>)>,
    ) -> Result<RecordBatch> {
        let mut texts: [StringBuilder; 7] = Default::default();
        let mut size = Int64Builder::new();
        let mut last_modified = TimestampMillisecondBuilder::new().with_timezone("UTC");
        for (object, key, status, reason) in rows {
            let values = [
                Some(self.schema_name.as_str()),
                table,
                Some(key),
                object.and_then(|object| object.e_tag.as_deref()),
                object.and_then(|object| object.storage_class.as_deref()),
                Some(status),
                reason,
            ];
            texts.iter_mut().zip(values).for_each(|(column, value)| column.append_option(value));
            size.append_option(object.and_then(|object| i64::try_from(object.size).ok()));
            last_modified.append_option(object.map(|object| object.last_modified.timestamp_millis()));
        }
        let mut texts = texts.into_iter().map(|mut column| Arc::new(column.finish()) as ArrayRef);
        let mut columns: Vec<ArrayRef> = texts.by_ref().take(3).collect();
        columns.push(Arc::new(size.finish()));
        columns.push(Arc::new(last_modified.finish()));
        columns.extend(texts);
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

/// A table, as the report shows it.
struct Row {
    name: String,
    location: String,
    kind: &'static str,
    format: Option<String>,
    files: Option<i64>,
    bytes: Option<i64>,
    status: &'static str,
    error: Option<String>,
}

impl Row {
    /// What is known without a request.
    fn known(entry: &Entry) -> Self {
        if let Some(table) = &entry.table {
            return Self::opened(entry, table);
        }
        let object = entry.object.as_ref();
        let name = entry.location.key().rsplit('/').next().unwrap_or_default();
        Self {
            name: entry.name.clone(),
            location: entry.location.to_string(),
            kind: if entry.location.is_folder() { "folder" } else { "file" },
            format: FileType::from_name(name).map(|(file_type, _)| file_type.to_string()),
            files: object.map(|_| 1),
            bytes: object.and_then(|object| i64::try_from(object.size).ok()),
            status: "listed",
            error: None,
        }
    }

    fn opened(entry: &Entry, table: &S3Table) -> Self {
        let total = table.total();
        Self {
            name: entry.name.clone(),
            location: entry.location.to_string(),
            kind: if entry.location.is_folder() { "folder" } else { "file" },
            format: Some(table.format()),
            files: total.and_then(|(files, _)| i64::try_from(files).ok()),
            bytes: total.and_then(|(_, bytes)| i64::try_from(bytes).ok()),
            status: "open",
            error: None,
        }
    }
}
