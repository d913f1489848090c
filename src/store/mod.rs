//! From settings to stores: one [`BucketStore`] for each bucket, built on first use.

mod bucket;
mod cache;
mod decompress;
mod lister;
mod listing;
mod pinned;
mod reads;
mod template;
mod transport;

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::{Arc, PoisonError, RwLock};

use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry, ObjectStoreUrl};
use datafusion::execution::runtime_env::RuntimeEnv;
use object_store::ObjectStore;
use url::Url;

pub(crate) use self::bucket::BucketStore;
pub use self::cache::CacheUse;
pub(crate) use self::cache::{ByteCache, ObjectVersion, Sized64};
pub(crate) use self::lister::FolderListing;
pub(crate) use self::listing::ListedObject;
use self::reads::PieceCache;
pub(crate) use self::reads::{End, ReadError, SMALL, STREAM_MEMORY};
use self::template::StoreTemplate;
pub use self::transport::RequestCounts;
use self::transport::{Counters, Transport};
use crate::error::Result;
use crate::settings::ConnectorSettings;

/// The stores of one connector: a bucket's store is built on first use and then shared.
#[derive(Debug)]
pub(crate) struct Stores {
    /// The settings that a bucket's name completes.
    template: StoreTemplate,
    /// What the schemes of this connector's store URLs start with: two connectors with other credentials, endpoints or
    /// regions never share a URL.
    fingerprint: String,
    counters: Arc<Counters>,
    /// Starts and ends of objects of all buckets.
    pieces: Arc<PieceCache>,
    requests_in_flight: usize,
    /// Guards the map only; building a store does no I/O.
    buckets: RwLock<HashMap<String, Arc<BucketStore>>>,
}

impl Stores {
    /// Reads the environment where the settings allow it, and checks what can be checked without I/O.
    pub(crate) fn try_new(settings: &ConnectorSettings) -> Result<Self> {
        let unicode = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        let template = StoreTemplate::try_new(settings, || std::env::vars_os().filter_map(unicode))?;
        let fingerprint = template.fingerprint();
        Ok(Self {
            template,
            fingerprint,
            counters: Arc::default(),
            pieces: Arc::new(PieceCache::new(settings.cache_bytes / 2)?),
            requests_in_flight: settings.requests_in_flight,
            buckets: RwLock::default(),
        })
    }

    /// The requests that all stores of this connector have sent.
    pub(crate) fn counts(&self) -> RequestCounts {
        self.counters.read()
    }

    /// How often reads were served from memory.
    pub(crate) fn cached_objects(&self) -> CacheUse {
        self.pieces.usage()
    }

    /// The store of a bucket.
    pub(crate) fn bucket(&self, bucket: &str) -> Result<Arc<BucketStore>> {
        if let Some(store) = self.buckets.read().unwrap_or_else(PoisonError::into_inner).get(bucket) {
            return Ok(Arc::clone(store));
        }
        let mut buckets = self.buckets.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = buckets.get(bucket) {
            return Ok(Arc::clone(store));
        }
        let transport = Transport::new(Arc::clone(&self.counters), self.template.signs());
        let s3 = self.template.build(bucket, transport)?;
        let pieces = Arc::clone(&self.pieces);
        let store = Arc::new(BucketStore::new(bucket, &self.fingerprint, s3, pieces, self.requests_in_flight)?);
        buckets.insert(bucket.to_owned(), Arc::clone(&store));
        Ok(store)
    }

    /// Makes a bucket known to a DataFusion runtime as `s3://bucket`. Plans of tables do not refer to it: see
    /// [`BucketStore::pin`].
    pub(crate) fn register(&self, bucket: &str, runtime: &RuntimeEnv) -> Result<()> {
        let url = ObjectStoreUrl::parse(format!("s3://{bucket}"))?;
        let store = self.bucket(bucket)?;
        runtime.register_object_store(url.as_ref(), Arc::clone(store.s3()) as Arc<dyn ObjectStore>);
        Ok(())
    }

    /// Whether a URL's scheme is one that the plans of a connector with these settings name their stores by, in this
    /// process or another.
    fn is_own(&self, scheme: &str) -> bool {
        scheme.strip_prefix(&self.fingerprint).is_some_and(|number| number.starts_with('-'))
    }
}

/// An [`ObjectStoreRegistry`] that builds a bucket's store on first use, for runtimes that execute a connector's plans
/// without having planned them.
#[derive(Debug)]
pub(crate) struct S3StoreRegistry {
    stores: Arc<Stores>,
    others: DefaultObjectStoreRegistry,
}

impl S3StoreRegistry {
    pub(crate) fn new(stores: Arc<Stores>) -> Self {
        Self { stores, others: DefaultObjectStoreRegistry::new() }
    }
}

impl ObjectStoreRegistry for S3StoreRegistry {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.others.register_store(url, store)
    }

    fn deregister_store(&self, url: &Url) -> datafusion::error::Result<Arc<dyn ObjectStore>> {
        self.others.deregister_store(url)
    }

    fn get_store(&self, url: &Url) -> datafusion::error::Result<Arc<dyn ObjectStore>> {
        let registered = self.others.get_store(url);
        match url.host_str() {
            Some(bucket) if registered.is_err() && self.stores.is_own(url.scheme()) => {
                Ok(self.stores.bucket(bucket)?.named(url))
            }
            Some(bucket) if registered.is_err() && url.scheme() == "s3" => {
                Ok(Arc::clone(self.stores.bucket(bucket)?.s3()) as Arc<dyn ObjectStore>)
            }
            _ => registered,
        }
    }
}
