//! From files to a plan: groups, statistics, and a stock `DataSourceExec` over the format's own source.

use std::sync::Arc;

use datafusion::catalog::Session;
use datafusion::common::config::CsvOptions;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    ArrowSource, AvroSource, CsvSource, FileGroup, FileScanConfigBuilder, FileSource, JsonSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::physical_plan::{ExecutionPlan, Partitioning};
use object_store::ObjectMeta;

use super::cache::FooterCache;
use super::reader::PinnedReaderFactory;
use crate::store::BucketStore;

/// What all scans of a table have in common.
#[derive(Debug)]
pub(crate) struct ScanTable {
    pub(crate) store: Arc<BucketStore>,
    pub(crate) footers: Arc<FooterCache>,
    pub(crate) schema: TableSchema,
    pub(crate) source: ScanSource,
    /// Whether the files are compressed as a whole. The store decompresses them.
    pub(crate) is_compressed: bool,
    /// Whether the schema was inferred from all files, so that none can be of another type.
    pub(crate) is_complete: bool,
}

/// Which of DataFusion's file sources reads a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScanSource {
    Parquet,
    Delimited { delimiter: u8 },
    Json { newline_delimited: bool },
    Arrow,
    Avro,
}

/// One file of a scan.
#[derive(Debug)]
pub(crate) struct ScanFile<'a> {
    pub(crate) object: &'a ObjectMeta,
    pub(crate) partition_values: &'a [ScalarValue],
    /// Statistics of the columns in the file, where its footer was read.
    pub(crate) statistics: Option<&'a Arc<Statistics>>,
}

/// Plans the read of these files. Nothing is requested.
pub(crate) fn scan(
    state: &dyn Session,
    table: &ScanTable,
    files: &[ScanFile<'_>],
    projection: Option<&Vec<usize>>,
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let store = match table.source {
        ScanSource::Parquet => Arc::clone(table.store.unpinned()),
        _ => table.store.pin(&files.iter().map(|file| file.object).collect::<Vec<_>>())?,
    };
    store.register(state.runtime_env());
    let files: Vec<PartitionedFile> = files.iter().map(partitioned_file).collect();
    let statistics = table_statistics(&files, table)?;
    let target_partitions = state.config().target_partitions();
    // Files are read one after the other until there are enough rows: a few rows are not worth a request to every file.
    let is_short = limit.is_some_and(|limit| limit <= state.config().batch_size());
    let groups = if is_short { 1 } else { file_groups(&files, target_partitions) };
    // DataFusion would split arrays, which it then cannot read, and compressed lines by their compressed sizes.
    let is_misread =
        matches!(table.source, ScanSource::Json { newline_delimited } if table.is_compressed || !newline_delimited);
    // A declared partitioning keeps DataFusion from making as many groups as it wants partitions.
    let is_declared = is_short || is_misread || groups > target_partitions;
    let groups = FileGroup::new(files).split_files(groups);
    let declared = is_declared.then(|| Partitioning::UnknownPartitioning(groups.len()));
    let config = FileScanConfigBuilder::new(store.url().clone(), file_source(state, table))
        .with_output_partitioning(declared)
        .with_file_groups(groups)
        .with_statistics(statistics)
        .with_projection_indices(projection.cloned())?
        .with_limit(limit)
        .build();
    Ok(DataSourceExec::from_data_source(config))
}

/// How many groups of files are read at the same time: one for each partition that DataFusion wants, and more where files
/// are small, since the answer of S3 then takes longer than decoding it. What is in flight stays bounded.
fn file_groups(files: &[PartitionedFile], target_partitions: usize) -> usize {
    const FILES_IN_FLIGHT: u64 = 64;
    const BYTES_IN_FLIGHT: u64 = 64 * 1024 * 1024;
    let count = files.len() as u64;
    let bytes: u64 = files.iter().map(|file| file.object_meta.size).sum();
    let average = (bytes / count.max(1)).max(1);
    let in_flight = count.min(FILES_IN_FLIGHT).min(BYTES_IN_FLIGHT / average);
    target_partitions.max(in_flight as usize)
}

fn file_source(state: &dyn Session, table: &ScanTable) -> Arc<dyn FileSource> {
    let schema = table.schema.clone();
    match table.source {
        ScanSource::Parquet => {
            let expected = (!table.is_complete).then(|| Arc::clone(table.schema.file_schema()));
            let factory = PinnedReaderFactory::new(Arc::clone(&table.store), Arc::clone(&table.footers), expected);
            let source = ParquetSource::new(schema)
                .with_table_parquet_options(state.default_table_options().parquet)
                .with_parquet_file_reader_factory(Arc::new(factory));
            Arc::new(source)
        }
        ScanSource::Delimited { delimiter } => {
            let options = CsvOptions {
                has_header: Some(true),
                // Otherwise DataFusion splits files at line ends, also at those inside quotes.
                newlines_in_values: Some(true),
                delimiter,
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

fn partitioned_file(file: &ScanFile<'_>) -> PartitionedFile {
    let mut planned =
        PartitionedFile::new_from_meta(file.object.clone()).with_partition_values(file.partition_values.to_vec());
    if let Some(statistics) = file.statistics {
        // Not `with_statistics`: it claims that no partition value is NULL.
        let mut statistics = Statistics::clone(statistics);
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

/// The statistics of all files together, where those of each are known.
fn table_statistics(files: &[PartitionedFile], table: &ScanTable) -> Result<Statistics> {
    let schema = table.schema.table_schema();
    let known: Option<Vec<&Statistics>> = files.iter().map(|file| file.statistics.as_deref()).collect();
    match known {
        Some(known) if !known.is_empty() => Statistics::try_merge_iter(known, schema),
        _ => Ok(Statistics::new_unknown(schema)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_are_read_many_at_a_time() {
        const MIB: u64 = 1024 * 1024;
        for (count, size, expected) in [
            (1, 100, 4),
            (3, 100, 4),
            (40, 100, 40),
            (1_000, 54_000, 64),
            (1_000, MIB, 64),
            (1_000, 4 * MIB, 16),
            (1_000, 100 * MIB, 4),
            (10, 0, 10),
        ] {
            let files: Vec<_> = (0..count).map(|file| PartitionedFile::new(file.to_string(), size)).collect();
            assert_eq!(file_groups(&files, 4), expected, "{count} files of {size} bytes");
        }
    }
}
