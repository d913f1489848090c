//! The reader of Parquet files: reads of the listed version, and footers from the [`FooterCache`].

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::ScalarValue;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{ParquetFileMetrics, ParquetFileReaderFactory};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::ObjectMeta;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use super::cache::FooterCache;
use super::footer;
use crate::error::{Error, Result};
use crate::store::{BucketStore, End, ReadError};

/// Reads a range of the version of an object that was listed: at most one GET.
///
/// # Errors
/// [`Error::ObjectChanged`] where the object is another by now.
pub(crate) async fn read_range(store: &BucketStore, object: &ObjectMeta, range: Range<u64>) -> Result<Bytes> {
    let mut bytes = read_ranges(store, object, std::slice::from_ref(&range)).await?;
    Ok(bytes.pop().unwrap_or_default())
}

/// Reads ranges of the version of an object that was listed; see [`Reads::ranges`](crate::store::Reads::ranges).
async fn read_ranges(store: &BucketStore, object: &ObjectMeta, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
    store.reads().ranges(object, ranges).await.map_err(|source| failed(store, object, source))
}

/// Reads the start or the end of the version of an object that was listed, and keeps it in memory: at most one GET.
pub(crate) async fn read_end(store: &BucketStore, object: &ObjectMeta, end: End, length: u64) -> Result<Bytes> {
    store.reads().end(object, end, length).await.map_err(|source| failed(store, object, source))
}

fn failed(store: &BucketStore, object: &ObjectMeta, source: ReadError) -> Error {
    Error::from_store("GET", format!("s3://{}/{}", store.bucket(), object.location), source)
}

/// Makes the readers of a scan of Parquet files.
#[derive(Debug)]
pub(crate) struct PinnedReaderFactory {
    store: Arc<BucketStore>,
    footers: Arc<FooterCache>,
    expected: Option<TableSchema>,
    memory: Arc<dyn MemoryPool>,
}

impl PinnedReaderFactory {
    /// `expected` is the table's schema where not all files were looked at: DataFusion would cast what does not fit it,
    /// and lose fractions. What is read counts as taken from `memory`.
    pub(crate) fn new(
        store: Arc<BucketStore>,
        footers: Arc<FooterCache>,
        expected: Option<TableSchema>,
        memory: Arc<dyn MemoryPool>,
    ) -> Self {
        Self { store, footers, expected, memory }
    }
}

impl ParquetFileReaderFactory for PinnedReaderFactory {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        _metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> datafusion::error::Result<Box<dyn AsyncFileReader + Send>> {
        let metrics = ParquetFileMetrics::new(partition_index, file.path().as_ref(), metrics);
        Ok(Box::new(PinnedReader {
            store: Arc::clone(&self.store),
            footers: Arc::clone(&self.footers),
            expected: self.expected.clone(),
            object: file.object_meta,
            partition_values: file.partition_values,
            metrics,
            memory: MemoryConsumer::new("S3 reads").register(&self.memory),
        }))
    }
}

struct PinnedReader {
    store: Arc<BucketStore>,
    footers: Arc<FooterCache>,
    expected: Option<TableSchema>,
    object: ObjectMeta,
    partition_values: Vec<ScalarValue>,
    metrics: ParquetFileMetrics,
    memory: MemoryReservation,
}

impl PinnedReader {
    /// The footer, of a file whose columns fit those of the table.
    async fn footer(&self) -> Result<Arc<ParquetMetaData>> {
        let footer = self.footers.get(&self.store, &self.object).await?;
        if let Some(expected) = &self.expected {
            footer::check_fit(&footer, expected.file_schema(), &self.store, &self.object)?;
            let columns = expected.table_partition_cols();
            footer::check_agreement(&footer, columns, &self.partition_values, &self.store, &self.object)?;
        }
        Ok(footer)
    }
}

impl AsyncFileReader for PinnedReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move { Ok(self.get_byte_ranges(vec![range]).await?.pop().unwrap_or_default()) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        let total = ranges.iter().map(|range| range.end.saturating_sub(range.start) as usize).sum();
        self.metrics.bytes_scanned.add(total);
        // What is in flight or being decoded, until the next read.
        self.memory.resize(total);
        async move { read_ranges(&self.store, &self.object, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move { self.footer().await.map_err(external) }.boxed()
    }
}

impl Drop for PinnedReader {
    fn drop(&mut self) {
        // As DataFusion's own reader does: several readers may share a file, so the total is set, not added.
        self.metrics.scan_efficiency_ratio.add_part(self.metrics.bytes_scanned.value());
        self.metrics.scan_efficiency_ratio.set_total(self.object.size as usize);
    }
}

fn external(error: Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}
