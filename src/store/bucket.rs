//! [`BucketStore`]: one bucket of a connector, and the stores that plans read it through.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use datafusion::execution::object_store::ObjectStoreUrl;
use object_store::aws::AmazonS3;
use object_store::{ObjectMeta, ObjectStore};
use url::Url;

use super::pinned::PinnedStore;
use super::reads::{PieceCache, Reads};
use crate::error::Result;

/// How many stores with pins a bucket keeps. Each stands for a state of the bucket that plans were made for; a plan that
/// is older than so many states fails instead of being executed.
const STATES: usize = 32;

/// One bucket: what listings ask, and what the stores that plans read from have in common.
pub(crate) struct BucketStore {
    bucket: String,
    /// What the schemes of store URLs start with, the same on every machine.
    fingerprint: String,
    s3: Arc<AmazonS3>,
    reads: Arc<Reads>,
    /// For plans whose reader knows the versions itself.
    unpinned: Arc<PinnedStore>,
    /// The stores that plans were made with, oldest first. Guards the list only.
    pinned: Mutex<VecDeque<Arc<PinnedStore>>>,
}

impl BucketStore {
    pub(super) fn new(
        bucket: &str,
        fingerprint: &str,
        s3: AmazonS3,
        pieces: Arc<PieceCache>,
        requests_in_flight: usize,
    ) -> Result<Self> {
        let s3 = Arc::new(s3);
        let reads = Reads::new(bucket, Arc::clone(&s3), pieces, requests_in_flight);
        let url = next_url(fingerprint, bucket)?;
        let unpinned = Arc::new(PinnedStore::new(bucket, url, Arc::clone(&s3), Arc::clone(&reads)));
        Ok(Self {
            bucket: bucket.to_owned(),
            fingerprint: fingerprint.to_owned(),
            s3,
            reads,
            unpinned,
            pinned: Mutex::default(),
        })
    }

    /// The bucket's name.
    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The client, which knows no pins.
    pub(crate) fn s3(&self) -> &Arc<AmazonS3> {
        &self.s3
    }

    /// Reads of listed objects.
    pub(crate) fn reads(&self) -> &Arc<Reads> {
        &self.reads
    }

    /// A store for a plan whose reader says itself which versions it reads.
    pub(crate) fn unpinned(&self) -> &Arc<PinnedStore> {
        &self.unpinned
    }

    /// A store for a plan, which reads these versions of these objects and no others.
    ///
    /// Plans share a store as long as they agree about the versions of objects. Where they do not, since an object was
    /// replaced between them, the later one gets a store of its own: the earlier one may still be executed.
    pub(crate) fn pin(&self, objects: &[&ObjectMeta]) -> Result<Arc<PinnedStore>> {
        let mut stores = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.iter().rev().find(|store| store.try_pin(objects)) {
            return Ok(Arc::clone(store));
        }
        let url = next_url(&self.fingerprint, &self.bucket)?;
        let store = Arc::new(PinnedStore::new(&self.bucket, url, Arc::clone(&self.s3), Arc::clone(&self.reads)));
        store.try_pin(objects);
        stores.push_back(Arc::clone(&store));
        if stores.len() > STATES
            && let Some(oldest) = stores.pop_front()
        {
            oldest.expire();
        }
        Ok(store)
    }

    /// The store that a plan names: with its pins if it was made by this connector, without them if by one elsewhere.
    pub(super) fn named(&self, url: &Url) -> Arc<dyn ObjectStore> {
        let stores = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        let is_named = |store: &&Arc<PinnedStore>| AsRef::<Url>::as_ref(store.url()).scheme() == url.scheme();
        let store = stores.iter().find(is_named).unwrap_or(&self.unpinned);
        Arc::clone(store) as Arc<dyn ObjectStore>
    }
}

/// A URL that no other store of any connector has, in this process or, most likely, another: a plan may be executed where
/// other plans are made.
fn next_url(fingerprint: &str, bucket: &str) -> Result<ObjectStoreUrl> {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(()));
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (process, number) = (*PROCESS, NEXT.fetch_add(1, Ordering::Relaxed));
    Ok(ObjectStoreUrl::parse(format!("{fingerprint}-{process:016x}-{number}://{bucket}"))?)
}

impl fmt::Debug for BucketStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketStore").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}
