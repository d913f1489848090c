//! [`FooterCache`]: Parquet footers, read once for each version of an object.
//!
//! DataFusion's own cache of footers is keyed by path, without bucket or etag; this one is keyed by both.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use object_store::ObjectMeta;
use object_store::path::Path;
use parquet::DecodeResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataPushDecoder};
use tokio::sync::OnceCell;

use super::reader::read_range;
use crate::error::{Error, Result};
use crate::store::BucketStore;

/// Bytes at the end of a file that the first read fetches: enough for most footers with their page index.
const FIRST_READ: u64 = 512 * 1024;

/// Memory that cached footers may take.
const CAPACITY: usize = 128 * 1024 * 1024;

type Footer = Arc<OnceCell<Arc<ParquetMetaData>>>;

/// A version of an object: where it is, and what a listing said of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    bucket: String,
    path: Path,
    size: u64,
    e_tag: Option<String>,
    /// In microseconds since 1970; decides where the store gives no etag.
    last_modified: i64,
}

/// Footers (with page index) by object version; each is read once, however many ask for it at the same time.
#[derive(Debug, Default)]
pub(crate) struct FooterCache {
    /// Guards the map only: reading a footer happens in its cell.
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    footers: HashMap<Key, (Footer, usize)>,
    /// Keys of footers that are counted in `bytes`, oldest first.
    order: VecDeque<Key>,
    bytes: usize,
}

impl FooterCache {
    /// The footer of a listed object. Costs one GET where it is not cached; where footer and page index
    /// exceed the first read, one more for each.
    pub(crate) async fn get(&self, store: &BucketStore, object: &ObjectMeta) -> Result<Arc<ParquetMetaData>> {
        let key = Key {
            bucket: store.bucket().to_owned(),
            path: object.location.clone(),
            size: object.size,
            e_tag: object.e_tag.clone(),
            last_modified: object.last_modified.timestamp_micros(),
        };
        let cell = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(&entries.footers.entry(key.clone()).or_default().0)
        };
        let loaded = cell.get_or_try_init(|| read_footer(store, object)).await;
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        match loaded {
            Ok(footer) => {
                entries.admit(&key, footer.memory_size());
                Ok(Arc::clone(footer))
            }
            Err(error) => {
                if entries.footers.get(&key).is_some_and(|(cell, _)| !cell.initialized()) {
                    entries.footers.remove(&key);
                }
                Err(error)
            }
        }
    }
}

impl Entries {
    /// Counts a footer that was read, and drops the oldest ones past the capacity.
    fn admit(&mut self, key: &Key, size: usize) {
        match self.footers.get_mut(key) {
            Some((_, counted)) if *counted == 0 => *counted = size.max(1),
            _ => return,
        }
        self.bytes += size.max(1);
        self.order.push_back(key.clone());
        while self.bytes > CAPACITY {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some((_, size)) = self.footers.remove(&oldest) {
                self.bytes -= size;
            }
        }
    }
}

async fn read_footer(store: &BucketStore, object: &ObjectMeta) -> Result<Arc<ParquetMetaData>> {
    let location = || format!("s3://{}/{}", store.bucket(), object.location);
    let invalid = |error: ParquetError| Error::InvalidFile {
        location: location(),
        format: "Parquet".to_owned(),
        reason: format!("{error}; replace it, or remove it from the table's folder"),
    };
    let tail = object.size.saturating_sub(FIRST_READ)..object.size;
    let bytes = read_range(store, object, tail.clone()).await?;
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
