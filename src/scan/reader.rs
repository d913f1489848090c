//! Pinned reads: every GET of a listed object says If-Match, and Parquet footers come from the [`FooterCache`].

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{ParquetFileMetrics, ParquetFileReaderFactory};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::{GetOptions, GetRange, OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, coalesce_ranges};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use super::cache::FooterCache;
use crate::error::{Error, Result};
use crate::store::BucketStore;

/// Reads a range of the version of an object that was listed: one GET.
///
/// # Errors
/// [`Error::ObjectChanged`] where the object is another by now.
pub(crate) async fn read_range(store: &BucketStore, object: &ObjectMeta, range: Range<u64>) -> Result<Bytes> {
    if range.is_empty() {
        return Ok(Bytes::new());
    }
    let options = GetOptions {
        range: Some(GetRange::Bounded(range.clone())),
        if_match: object.e_tag.clone(),
        ..GetOptions::default()
    };
    let failed = |source| Error::from_store("GET", format!("s3://{}/{}", store.bucket(), object.location), source);
    let answer = store.s3().get_opts(&object.location, options).await.map_err(failed)?;
    let bytes = answer.bytes().await.map_err(failed)?;
    let expected = range.end - range.start;
    if bytes.len() as u64 != expected {
        let text = format!("the answer has {} bytes instead of {expected}", bytes.len());
        return Err(failed(object_store::Error::Generic { store: "S3", source: text.into() }));
    }
    Ok(bytes)
}

/// Makes the readers of a scan of Parquet files.
#[derive(Debug)]
pub(crate) struct PinnedReaderFactory {
    store: Arc<BucketStore>,
    footers: Arc<FooterCache>,
}

impl PinnedReaderFactory {
    pub(crate) fn new(store: Arc<BucketStore>, footers: Arc<FooterCache>) -> Self {
        Self { store, footers }
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
        let (store, footers) = (Arc::clone(&self.store), Arc::clone(&self.footers));
        Ok(Box::new(PinnedReader { store, footers, object: file.object_meta, metrics }))
    }
}

struct PinnedReader {
    store: Arc<BucketStore>,
    footers: Arc<FooterCache>,
    object: ObjectMeta,
    metrics: ParquetFileMetrics,
}

impl AsyncFileReader for PinnedReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        self.metrics.bytes_scanned.add((range.end - range.start) as usize);
        async move { read_range(&self.store, &self.object, range).await.map_err(external) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        let total: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        self.metrics.bytes_scanned.add(total as usize);
        async move {
            let read = |range| read_range(&self.store, &self.object, range);
            coalesce_ranges(&ranges, read, OBJECT_STORE_COALESCE_DEFAULT).await.map_err(external)
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move { self.footers.get(&self.store, &self.object).await.map_err(external) }.boxed()
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
