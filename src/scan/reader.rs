//! Pinned reads: every GET of a listed object says If-Match, and Parquet footers come from the [`FooterCache`].

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{
    ParquetFileMetrics, ParquetFileReaderFactory, transform_schema_to_view,
};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::{GetOptions, GetRange, OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, coalesce_ranges};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::parquet_to_arrow_schema;
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
    expected: Option<SchemaRef>,
}

impl PinnedReaderFactory {
    /// `expected` is the table's schema where not all files were looked at: DataFusion would cast what does not fit it,
    /// and lose fractions.
    pub(crate) fn new(store: Arc<BucketStore>, footers: Arc<FooterCache>, expected: Option<SchemaRef>) -> Self {
        Self { store, footers, expected }
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
            metrics,
        }))
    }
}

struct PinnedReader {
    store: Arc<BucketStore>,
    footers: Arc<FooterCache>,
    expected: Option<SchemaRef>,
    object: ObjectMeta,
    metrics: ParquetFileMetrics,
}

impl PinnedReader {
    /// The footer, of a file whose columns have the types that the table has.
    async fn footer(&self) -> Result<Arc<ParquetMetaData>> {
        let footer = self.footers.get(&self.store, &self.object).await?;
        let Some(expected) = &self.expected else { return Ok(footer) };
        let metadata = footer.file_metadata();
        let schema = parquet_to_arrow_schema(metadata.schema_descr(), metadata.key_value_metadata())
            .map_err(|error| Error::DataFusion(error.into()))?;
        for field in transform_schema_to_view(&schema).fields() {
            let Ok(column) = expected.field_with_name(field.name()) else { continue };
            if !column.data_type().equals_datatype(field.data_type()) {
                let reason = format!(
                    "column \"{}\" is {} in the table and {} in s3://{}/{}; rewrite that file, or move it out of the folder",
                    field.name(),
                    column.data_type(),
                    field.data_type(),
                    self.store.bucket(),
                    self.object.location
                );
                return Err(Error::SchemaConflict { reason });
            }
        }
        Ok(footer)
    }
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
