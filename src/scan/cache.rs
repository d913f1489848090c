//! [`FooterCache`]: Parquet footers, read once for each version of an object.
//!
//! DataFusion's own cache of footers is keyed by path, without bucket or etag; this one is keyed by both.

use std::sync::Arc;

use object_store::ObjectMeta;
use parquet::DecodeResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataPushDecoder};

use super::reader::{read_end, read_range};
use crate::error::{Error, Result};
use crate::store::{BucketStore, ByteCache, CacheUse, End, ObjectVersion, SMALL, Sized64};

/// Bytes at the end of a file that the first read fetches: enough for most footers with their page index. A small file is
/// fetched as a whole.
pub(crate) const FIRST_READ: u64 = 512 * 1024;

impl Sized64 for Arc<ParquetMetaData> {
    fn bytes(&self) -> u64 {
        self.memory_size() as u64
    }
}

/// Footers (with page index) by object version; each is read once, however many ask for it at the same time.
#[derive(Debug)]
pub(crate) struct FooterCache(ByteCache<ObjectVersion, Arc<ParquetMetaData>>);

impl FooterCache {
    /// A cache of at most so many bytes.
    pub(crate) fn new(capacity: u64) -> Result<Self> {
        Ok(Self(ByteCache::new(capacity)?))
    }

    /// The footer of a listed object. Costs one GET where neither it nor the end of the file is in memory; where footer
    /// and page index exceed the first read, one more for each.
    pub(crate) async fn get(&self, store: &BucketStore, object: &ObjectMeta) -> Result<Arc<ParquetMetaData>> {
        self.0.get_or_load(&ObjectVersion::new(store.bucket(), object), read_footer(store, object)).await
    }

    /// The footer of a listed object where it is cached.
    pub(crate) fn peek(&self, store: &BucketStore, object: &ObjectMeta) -> Option<Arc<ParquetMetaData>> {
        self.0.peek(&ObjectVersion::new(store.bucket(), object))
    }

    pub(crate) fn usage(&self) -> CacheUse {
        self.0.usage()
    }
}

async fn read_footer(store: &BucketStore, object: &ObjectMeta) -> Result<Arc<ParquetMetaData>> {
    let location = || format!("s3://{}/{}", store.bucket(), object.location);
    let invalid = |error: ParquetError| Error::InvalidFile {
        location: location(),
        format: "Parquet".to_owned(),
        reason: format!("{error}; replace it, or remove it from the table's folder"),
    };
    let length = if object.size <= SMALL { object.size } else { FIRST_READ };
    let bytes = read_end(store, object, End::End, length).await?;
    let tail = object.size - bytes.len() as u64..object.size;
    if let Some(reason) = not_parquet(&bytes, object.size) {
        return Err(Error::InvalidFile {
            location: location(),
            format: "Parquet".to_owned(),
            reason: reason.to_owned(),
        });
    }
    let mut decoder = ParquetMetaDataPushDecoder::try_new(object.size)
        .map_err(invalid)?
        .with_page_index_policy(PageIndexPolicy::Optional);
    decoder.push_range(tail, bytes).map_err(invalid)?;
    loop {
        match decoder.try_decode().map_err(invalid)? {
            DecodeResult::Data(footer) => return Ok(Arc::new(footer)),
            DecodeResult::NeedsData(ranges) => {
                for range in ranges {
                    let bytes = read_range(store, object, range.clone()).await?;
                    decoder.push_range(range, bytes).map_err(invalid)?;
                }
            }
            DecodeResult::Finished => return Err(invalid(ParquetError::General("its footer ended early".into()))),
        }
    }
}

/// What the end of a file of `size` bytes that is no readable Parquet shows.
fn not_parquet(tail: &[u8], size: u64) -> Option<&'static str> {
    /// The length of the footer, and the magic bytes.
    const END: u64 = 8;
    let cut = Some(
        "it does not end in PAR1, so it is truncated or of another format; replace it, or remove it from the table's folder",
    );
    let Some((rest, magic)) = tail.split_last_chunk::<4>() else { return cut };
    let Some((_, length)) = rest.split_last_chunk::<4>() else { return cut };
    match magic {
        // The decoder subtracts without a check.
        b"PAR1" if u64::from(u32::from_le_bytes(*length)) + END > size => Some(
            "its footer is longer than the file, so it is damaged; replace it, or remove it from the table's folder",
        ),
        b"PAR1" => None,
        b"PARE" => Some("its footer is encrypted, which this reader cannot decrypt"),
        _ => cut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_that_are_no_footer_are_told() {
        for (tail, size, part) in [
            (&b""[..], 0, "does not end in PAR1"),
            (b"PAR1", 4, "does not end in PAR1"),
            (b"id,name\n1,x\n", 12, "does not end in PAR1"),
            (b"xxxxxxxxPAR1", 12, "longer than the file"),
            (b"\xff\xff\xff\xffPAR1", 8, "longer than the file"),
            (b"\x04\0\0\0PARE", 100, "encrypted"),
        ] {
            assert!(not_parquet(tail, size).is_some_and(|reason| reason.contains(part)), "{tail:?}");
        }
        assert_eq!(not_parquet(b"\x04\0\0\0PAR1", 100), None);
    }
}
