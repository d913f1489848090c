//! From files to a plan: statistics, and a stock `DataSourceExec` over the format's own source.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::Fields;
use datafusion::catalog::Session;
use datafusion::common::config::CsvOptions;
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    ArrowSource, AvroSource, CsvSource, FileGroup, FileScanConfigBuilder, FileSource, JsonSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, Partitioning};
use object_store::ObjectMeta;
use object_store::path::Path;

use super::cache::FooterCache;
use super::footer;
use super::groups::{self, InFlight};
use super::late;
use super::reader::PinnedReaderFactory;
use super::shape::{self, ReadAs};
use crate::format::{FileType, Format};
use crate::store::{BucketStore, ByteCache, Sized64};

/// What all scans of a table have in common.
#[derive(Debug)]
pub(crate) struct ScanTable {
    pub(crate) store: Arc<BucketStore>,
    pub(crate) footers: Arc<FooterCache>,
    pub(crate) schema: TableSchema,
    /// The type of all files. The store decompresses those that are compressed as a whole.
    pub(crate) file_type: FileType,
    /// Whether the schema was inferred from all files, so that each of them fits it.
    pub(crate) is_complete: bool,
    /// Texts that stand for NULL in delimited text, beside the empty one.
    pub(crate) nulls: Vec<String>,
    pub(crate) in_flight: InFlight,
    /// Statistics of files that opening the table did not look at, from footers that scans have read since.
    pub(crate) statistics: ByteCache<Path, Arc<Statistics>>,
}

/// Files whose footers tell what the columns of a table are like.
const SAMPLED: usize = 8;

/// Memory that the statistics of a table may take.
pub(crate) const STATISTICS_BYTES: u64 = 16 * 1024 * 1024;

impl Sized64 for Arc<Statistics> {
    fn bytes(&self) -> u64 {
        (self.column_statistics.len() * size_of::<ColumnStatistics>()) as u64
    }
}

impl ScanTable {
    /// The statistics of a file's columns: those that opening the table found, or else those of a footer that is cached
    /// and fits the table.
    fn statistics(&self, file: &ScanFile<'_>) -> Option<Arc<Statistics>> {
        if file.statistics.is_some() || self.file_type.format != Format::Parquet {
            return file.statistics.cloned();
        }
        let path = &file.object.location;
        if let Some(known) = self.statistics.peek(path) {
            return Some(known);
        }
        let footer = self.footers.peek(&self.store, file.object)?;
        let schema = self.schema.file_schema();
        footer::check_fit(&footer, schema, &self.store, file.object).ok()?;
        let statistics = Arc::new(footer::statistics(&footer, schema).ok()?);
        self.statistics.insert(path.clone(), Arc::clone(&statistics));
        Some(statistics)
    }
}

/// Which of DataFusion's file sources reads a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScanSource {
    Parquet,
    Delimited(Delimited),
    Json { newline_delimited: bool },
    Arrow,
    Avro,
}

/// How delimited text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Delimited {
    pub(crate) has_header: bool,
    pub(crate) delimiter: u8,
    pub(crate) quote: u8,
    pub(crate) escape: Option<u8>,
    pub(crate) comment: Option<u8>,
    pub(crate) pad_short_rows: bool,
}

/// How a file other than Parquet is read, by its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileShape {
    pub(crate) source: ScanSource,
    /// Its columns, in order.
    pub(crate) columns: Fields,
}

/// One file of a scan.
#[derive(Debug)]
pub(crate) struct ScanFile<'a> {
    pub(crate) object: &'a ObjectMeta,
    pub(crate) partition_values: &'a [ScalarValue],
    /// Statistics of the columns in the file, where its footer was read.
    pub(crate) statistics: Option<&'a Arc<Statistics>>,
    /// Not for Parquet, which says in its footer how it is read.
    pub(crate) shape: Option<&'a FileShape>,
}

/// Plans the read of these files, with the table's schema or that with metadata columns. Nothing is requested.
///
/// DataFusion reads CSV and Arrow IPC by the position of columns, and a source reads all of its files alike. So files that
/// differ in that are read by sources of their own, whose rows then get the table's columns by name.
pub(crate) fn scan(
    state: &dyn Session,
    table: &ScanTable,
    schema: &TableSchema,
    files: &[ScanFile<'_>],
    projection: Option<&Vec<usize>>,
    filters: &[Expr],
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let mut alike: Vec<(ReadAs, Vec<&ScanFile<'_>>)> = Vec::new();
    // Neighbours mostly share their columns.
    let mut latest: Option<(Option<&FileShape>, usize)> = None;
    for file in files {
        let place = match latest {
            Some((shape, place)) if shape == file.shape => place,
            _ => {
                let read_as = ReadAs::new(schema, file.shape, !table.nulls.is_empty());
                alike.iter().position(|(known, _)| *known == read_as).unwrap_or_else(|| {
                    alike.push((read_as, Vec::new()));
                    alike.len() - 1
                })
            }
        };
        alike[place].1.push(file);
        latest = Some((file.shape, place));
    }
    let plan = |(read_as, files): (ReadAs, Vec<&ScanFile<'_>>)| {
        let Some(columns) = &read_as.columns else {
            return scan_alike(state, table, read_as.source, schema, &files, projection, filters, limit);
        };
        let of_files = TableSchema::builder(Arc::clone(columns))
            .with_table_partition_cols(schema.table_partition_cols().clone())
            .build();
        let wanted = shape::wanted(schema, &of_files, projection);
        let plan =
            scan_alike(state, table, read_as.source, &of_files, &files, Some(&wanted.indices()), filters, limit)?;
        let is_text = matches!(read_as.source, ScanSource::Delimited(_));
        wanted.in_table(plan, if is_text { &table.nulls } else { &[] })
    };
    let mut plans: Vec<Arc<dyn ExecutionPlan>> = alike.into_iter().map(plan).collect::<Result<_>>()?;
    match plans.len() {
        1 => Ok(plans.remove(0)),
        _ => UnionExec::try_new(plans),
    }
}

/// Plans the read of files that one source can read.
#[expect(clippy::too_many_arguments, reason = "what DataFusion asks of a scan, and which files")]
fn scan_alike(
    state: &dyn Session,
    table: &ScanTable,
    source: ScanSource,
    schema: &TableSchema,
    files: &[&ScanFile<'_>],
    projection: Option<&Vec<usize>>,
    filters: &[Expr],
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let store = match source {
        ScanSource::Parquet => Arc::clone(table.store.unpinned()),
        _ => table.store.pin(&files.iter().map(|file| file.object).collect::<Vec<_>>())?,
    };
    store.register(state.runtime_env());
    let wanted = wanted_columns(schema, projection, filters);
    let is_late = source == ScanSource::Parquet && {
        let footers: Vec<_> =
            files.iter().take(SAMPLED).filter_map(|file| table.footers.peek(&table.store, file.object)).collect();
        late::pays(filters, wanted.as_ref(), &footers.iter().map(Arc::as_ref).collect::<Vec<_>>())
    };
    let files: Vec<PartitionedFile> = files.iter().map(|file| partitioned_file(table, file)).collect();
    let statistics = table_statistics(&files, schema)?;
    // Files are read one after the other until there are enough rows: a few rows are not worth a request to every file.
    let short = limit.filter(|limit| *limit <= state.config().batch_size());
    let groups = match short {
        Some(_) => vec![FileGroup::new(files)],
        None => {
            let units = groups::units(table, source, files, wanted.as_ref());
            groups::group(units, state.config().target_partitions(), table.in_flight)
        }
    };
    // DataFusion would split arrays, which it then cannot read, and compressed lines by their compressed sizes.
    let is_compressed = table.file_type.compression != CompressionTypeVariant::UNCOMPRESSED;
    let is_misread = matches!(source, ScanSource::Json { newline_delimited } if is_compressed || !newline_delimited);
    // A declared partitioning keeps DataFusion from making as many groups as it wants partitions.
    let is_declared = short.is_some() || is_misread || groups.len() > state.config().target_partitions();
    let declared = is_declared.then(|| Partitioning::UnknownPartitioning(groups.len()));
    let config = FileScanConfigBuilder::new(store.url().clone(), file_source(state, table, source, schema, is_late))
        .with_output_partitioning(declared)
        .with_file_groups(groups)
        .with_statistics(statistics)
        .with_projection_indices(projection.cloned())?
        .with_limit(limit)
        // A batch of more rows than are wanted may need more of a file than its start.
        .with_batch_size(short.map(|limit| limit.max(1)))
        .build();
    Ok(DataSourceExec::from_data_source(config))
}

/// The names of the file columns that a scan reads; `None` for all.
fn wanted_columns(schema: &TableSchema, projection: Option<&Vec<usize>>, filters: &[Expr]) -> Option<HashSet<String>> {
    let schema = schema.table_schema();
    let projected =
        projection?.iter().filter_map(|index| schema.fields().get(*index)).map(|field| field.name().clone());
    let filtered = filters.iter().flat_map(|filter| filter.column_refs()).map(|column| column.name.clone());
    Some(projected.chain(filtered).collect())
}

fn file_source(
    state: &dyn Session,
    table: &ScanTable,
    source: ScanSource,
    schema: &TableSchema,
    is_late: bool,
) -> Arc<dyn FileSource> {
    let schema = schema.clone();
    match source {
        ScanSource::Parquet => {
            let expected = (!table.is_complete).then(|| table.schema.clone());
            let factory = PinnedReaderFactory::new(
                Arc::clone(&table.store),
                Arc::clone(&table.footers),
                expected,
                Arc::clone(&state.runtime_env().memory_pool),
            );
            let source = ParquetSource::new(schema)
                .with_table_parquet_options(state.default_table_options().parquet)
                .with_parquet_file_reader_factory(Arc::new(factory));
            // What the session's settings say stays on.
            Arc::new(if is_late { source.with_pushdown_filters(true) } else { source })
        }
        ScanSource::Delimited(text) => {
            let options = CsvOptions {
                has_header: Some(text.has_header),
                // Otherwise DataFusion splits files at line ends, also at those inside quotes.
                newlines_in_values: Some(true),
                delimiter: text.delimiter,
                quote: text.quote,
                escape: text.escape,
                comment: text.comment,
                truncated_rows: Some(text.pad_short_rows),
                ..CsvOptions::default()
            };
            Arc::new(CsvSource::new(schema).with_csv_options(options))
        }
        ScanSource::Json { newline_delimited } => {
            Arc::new(JsonSource::new(schema).with_newline_delimited(newline_delimited))
        }
        ScanSource::Arrow => Arc::new(ArrowSource::new_file_source(schema)),
        ScanSource::Avro => Arc::new(AvroSource::new(schema)),
    }
}

fn partitioned_file(table: &ScanTable, file: &ScanFile<'_>) -> PartitionedFile {
    let mut planned =
        PartitionedFile::new_from_meta(file.object.clone()).with_partition_values(file.partition_values.to_vec());
    if let Some(statistics) = table.statistics(file) {
        // Not `with_statistics`: it claims that no partition value is NULL.
        let mut statistics = Arc::unwrap_or_clone(statistics);
        let rows = statistics.num_rows;
        statistics
            .column_statistics
            .extend(file.partition_values.iter().map(|value| partition_statistics(value, rows)));
        planned.statistics = Some(Arc::new(statistics));
    }
    planned
}

/// The statistics of a partition column in one file: a constant.
fn partition_statistics(value: &ScalarValue, rows: Precision<usize>) -> ColumnStatistics {
    if value.is_null() {
        return ColumnStatistics { null_count: rows, ..ColumnStatistics::new_unknown() };
    }
    ColumnStatistics {
        null_count: Precision::Exact(0),
        min_value: Precision::Exact(value.clone()),
        max_value: Precision::Exact(value.clone()),
        distinct_count: Precision::Exact(1),
        ..ColumnStatistics::new_unknown()
    }
}

/// The statistics of all files together, where those of each are known. Otherwise it is their size, by which joins choose
/// the side that they keep in memory, and by whose values they then filter the other.
fn table_statistics(files: &[PartitionedFile], schema: &TableSchema) -> Result<Statistics> {
    let schema = schema.table_schema();
    let known: Option<Vec<&Statistics>> = files.iter().map(|file| file.statistics.as_deref()).collect();
    match known {
        Some(known) if !known.is_empty() => Statistics::try_merge_iter(known, schema),
        _ => {
            let size: u64 = files.iter().map(|file| file.object_meta.size).sum();
            let total_byte_size = Precision::Inexact(usize::try_from(size).unwrap_or(usize::MAX));
            Ok(Statistics { total_byte_size, ..Statistics::new_unknown(schema) })
        }
    }
}
