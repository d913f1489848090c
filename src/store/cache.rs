//! Caches by object version, bounded in bytes.

use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};

use object_store::ObjectMeta;
use object_store::path::Path;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, Options, OptionsBuilder, Weighter};

use crate::error::{Error, Result};

/// One version of an object: what is cached by it is never that of another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ObjectVersion {
    bucket: String,
    path: Path,
    size: u64,
    /// Its etag, or the time of its last change in microseconds where the store gives none. A GET tells that time in
    /// seconds only, so that it decides nothing where there is an etag.
    stamp: std::result::Result<String, i64>,
}

impl ObjectVersion {
    pub(crate) fn new(bucket: &str, object: &ObjectMeta) -> Self {
        Self {
            bucket: bucket.to_owned(),
            path: object.location.clone(),
            size: object.size,
            stamp: object.e_tag.clone().ok_or(object.last_modified.timestamp_micros()),
        }
    }
}

/// How often a cache had what was asked of it, since the connector was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CacheUse {
    /// Times that it had what was asked for.
    pub hits: u64,
    /// Times that it had not, so that S3 was asked.
    pub misses: u64,
    /// Bytes that it holds now.
    pub bytes: u64,
}

/// Something whose size a cache counts.
pub(crate) trait Sized64 {
    /// Bytes of memory that it takes, about.
    fn bytes(&self) -> u64;
}

#[derive(Debug, Clone)]
struct BySize;

impl<K, V: Sized64> Weighter<K, V> for BySize {
    fn weight(&self, _key: &K, value: &V) -> u64 {
        /// Bytes of a key and its place in the map, about.
        const KEY: u64 = 256;
        KEY + value.bytes()
    }
}

/// A cache of what S3 was asked for, bounded in bytes. Values must be cheap to clone.
pub(crate) struct ByteCache<K, V> {
    entries: Cache<K, V, BySize>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl<K: Eq + Hash + Clone, V: Clone + Sized64> ByteCache<K, V> {
    /// A cache of at most so many bytes; of none, it keeps nothing.
    pub(crate) fn new(capacity: u64) -> Result<Self> {
        let entries =
            Cache::with_options(options(capacity)?, BySize, DefaultHashBuilder::default(), DefaultLifecycle::default());
        Ok(Self { entries, hits: AtomicU64::new(0), misses: AtomicU64::new(0) })
    }

    /// What is cached, without counting.
    pub(crate) fn peek(&self, key: &K) -> Option<V> {
        self.entries.get(key)
    }

    /// Keeps a value.
    pub(crate) fn insert(&self, key: K, value: V) {
        self.entries.insert(key, value);
    }

    /// What is cached, or else what `load` gives: once for all who ask at the same time. Where it fails or is dropped, the
    /// next of them loads.
    pub(crate) async fn get_or_load(&self, key: &K, load: impl Future<Output = Result<V>>) -> Result<V> {
        let mut is_hit = true;
        let loaded = self
            .entries
            .get_or_insert_async(key, async {
                is_hit = false;
                load.await
            })
            .await;
        self.count(is_hit);
        loaded
    }

    /// Counts a lookup that was made by [`peek`](Self::peek).
    pub(crate) fn count(&self, is_hit: bool) {
        if is_hit { &self.hits } else { &self.misses }.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes that it may hold.
    pub(crate) fn capacity(&self) -> u64 {
        self.entries.capacity()
    }

    pub(crate) fn usage(&self) -> CacheUse {
        CacheUse {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            bytes: self.entries.weight(),
        }
    }
}

fn options(capacity: u64) -> Result<Options> {
    // One shard, so that a large entry may take any part of the capacity.
    OptionsBuilder::new()
        .shards(1)
        .estimated_items_capacity(1024)
        .weight_capacity(capacity)
        .build()
        .map_err(|error| Error::InvalidSetting { setting: "cache_bytes", reason: error.to_string() })
}

impl<K, V> fmt::Debug for ByteCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteCache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Sized64 for u64 {
        fn bytes(&self) -> u64 {
            *self
        }
    }

    #[test]
    fn versions_differ_by_etag_or_else_by_time() {
        let object = |e_tag: Option<&str>, second: u64| ObjectMeta {
            location: Path::from("a"),
            last_modified: (std::time::UNIX_EPOCH + std::time::Duration::from_secs(second)).into(),
            size: 7,
            e_tag: e_tag.map(str::to_owned),
            version: None,
        };
        let version = |e_tag, second| ObjectVersion::new("b", &object(e_tag, second));
        assert_eq!(version(Some("x"), 1), version(Some("x"), 2));
        assert_ne!(version(Some("x"), 1), version(Some("y"), 1), "the same size and time");
        assert_ne!(version(None, 1), version(None, 2));
        assert_eq!(version(None, 1), version(None, 1));
    }

    #[test]
    fn a_cache_is_bounded_in_bytes() {
        for (capacity, most) in [(0, 0), (10_000, 10_000), (1_000_000, 1_000_000)] {
            let cache = ByteCache::new(capacity).unwrap();
            for key in 0..1_000 {
                cache.insert(key, 1_000_u64);
            }
            let bytes = cache.usage().bytes;
            assert!(bytes <= most && bytes * 2 >= most, "{bytes} of {capacity}");
            cache.insert(1_000, capacity + 1);
            assert!(cache.peek(&1_000).is_none(), "what is larger than the cache is not kept");
        }
    }

    #[tokio::test]
    async fn a_value_is_loaded_once_and_after_a_failure_again() {
        let cache: ByteCache<i32, u64> = ByteCache::new(10_000).unwrap();
        let failed =
            cache.get_or_load(&1, async { Err(Error::InvalidSetting { setting: "x", reason: String::new() }) });
        assert!(failed.await.is_err());
        let (first, second) = tokio::join!(
            cache.get_or_load(&1, async {
                tokio::task::yield_now().await;
                Ok(7)
            }),
            cache.get_or_load(&1, async { panic!("loaded twice") })
        );
        assert_eq!((first.unwrap(), second.unwrap()), (7, 7));
        assert_eq!((cache.usage().hits, cache.usage().misses), (1, 2));
    }
}
