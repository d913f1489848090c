//! From settings to a store: one [`BucketStore`] for each bucket, built on first use.

mod lister;
mod transport;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry, ObjectStoreUrl};
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::stream::BoxStream;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};
use url::Url;

pub(crate) use self::lister::FolderListing;
pub use self::transport::RequestCounts;
use self::transport::{Counters, Transport};
use crate::error::{Error, Result};
use crate::settings::{ConnectorSettings, Secret, check_endpoint};

/// The stores of one connector: a bucket's store is built on first use and then shared.
#[derive(Debug)]
pub(crate) struct Stores {
    /// The builder that a bucket's name completes.
    template: StoreTemplate,
    /// Marks this connector's store URLs: two connectors with other credentials, endpoints or regions never share one.
    scheme: String,
    counters: Arc<Counters>,
    /// Guards the map only; building a store does no I/O.
    buckets: RwLock<HashMap<String, Arc<BucketStore>>>,
}

impl Stores {
    /// Reads the environment where the settings allow it, and checks what can be checked without I/O.
    pub(crate) fn try_new(settings: &ConnectorSettings) -> Result<Self> {
        let counters = Arc::new(Counters::default());
        let template = StoreTemplate::try_new(settings, std::env::vars)?;
        let scheme = template.scheme();
        Ok(Self { template, scheme, counters, buckets: RwLock::default() })
    }

    /// The requests that all stores of this connector have sent.
    pub(crate) fn counts(&self) -> RequestCounts {
        self.counters.read()
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
        let s3 = Arc::new(self.template.build(bucket, Transport::new(Arc::clone(&self.counters)))?);
        let scheme = self.scheme.clone();
        let store = Arc::new(BucketStore { bucket: bucket.to_owned(), scheme, s3, pinned: Mutex::default() });
        buckets.insert(bucket.to_owned(), Arc::clone(&store));
        Ok(store)
    }

    /// Makes a bucket known to a DataFusion runtime as `s3://bucket`, where nobody else has claimed that, so that
    /// `COPY … TO 's3://bucket/…'` works. Plans do not refer to it: see [`BucketStore::pin`].
    pub(crate) fn register(&self, bucket: &str, runtime: &RuntimeEnv) -> Result<()> {
        let store = self.bucket(bucket)?;
        let plain = ObjectStoreUrl::parse(format!("s3://{bucket}"))?;
        if runtime.object_store(&plain).is_err() {
            runtime.register_object_store(plain.as_ref(), Arc::clone(&store.s3) as Arc<dyn ObjectStore>);
        }
        Ok(())
    }

    /// Whether a URL's scheme is one that the plans of a connector with these settings name their stores by.
    fn is_own(&self, scheme: &str) -> bool {
        scheme.strip_prefix(&self.scheme).is_some_and(|number| number.is_empty() || number.starts_with('-'))
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
                Ok(self.stores.bucket(bucket)?.reader(url))
            }
            Some(bucket) if registered.is_err() && url.scheme() == "s3" => {
                Ok(Arc::clone(&self.stores.bucket(bucket)?.s3) as Arc<dyn ObjectStore>)
            }
            _ => registered,
        }
    }
}

/// What every bucket's store of a connector has in common.
#[derive(Clone)]
struct StoreTemplate(AmazonS3Builder);

impl StoreTemplate {
    fn try_new<I: Iterator<Item = (String, String)>>(
        settings: &ConnectorSettings,
        environment: impl Fn() -> I,
    ) -> Result<Self> {
        let mut builder = AmazonS3Builder::new();
        if settings.environment {
            // A key of the settings must not meet a token of the environment, nor an endpoint the other variable's.
            let own_credentials = settings.anonymous || settings.access_key_id.is_some();
            for (name, value) in environment().filter(|(name, value)| name.starts_with("AWS_") && !value.is_empty()) {
                let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() else { continue };
                let is_credential = matches!(
                    key,
                    AmazonS3ConfigKey::AccessKeyId | AmazonS3ConfigKey::SecretAccessKey | AmazonS3ConfigKey::Token
                );
                let is_endpoint = matches!(key, AmazonS3ConfigKey::Endpoint | AmazonS3ConfigKey::S3Endpoint);
                let is_skipped = (own_credentials && is_credential)
                    || (settings.endpoint.is_some() && is_endpoint)
                    || matches!(key, AmazonS3ConfigKey::Bucket);
                if !is_skipped {
                    builder = builder.with_config(key, value);
                }
            }
        }
        if let Some(region) = &settings.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(id) = &settings.access_key_id {
            builder = builder.with_access_key_id(id);
        }
        if let Some(secret) = &settings.secret_access_key {
            builder = builder.with_secret_access_key(Secret::expose(secret));
        }
        if let Some(token) = &settings.session_token {
            builder = builder.with_token(Secret::expose(token));
        }
        if settings.anonymous {
            builder = builder.with_skip_signature(true);
        }
        if settings.allow_http {
            builder = builder.with_allow_http(true);
        }
        if settings.virtual_host {
            builder = builder.with_virtual_hosted_style_request(true);
        }
        let template = Self(builder);
        for key in [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint] {
            if let Some(endpoint) = template.0.get_config_value(&key) {
                check_endpoint(&endpoint, template.allows_http())?;
            }
        }
        Ok(template)
    }

    fn allows_http(&self) -> bool {
        let key = AmazonS3ConfigKey::Client(object_store::ClientConfigKey::AllowHttp);
        self.0.get_config_value(&key).is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
    }

    /// `s3-` and a hash of what decides which bytes a bucket's name stands for and who asks for them. No secret enters
    /// it, and it is the same on every machine, since a plan that is sent elsewhere names its stores by it.
    fn scheme(&self) -> String {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        let mut hash = OFFSET;
        for key in [
            AmazonS3ConfigKey::Endpoint,
            AmazonS3ConfigKey::S3Endpoint,
            AmazonS3ConfigKey::Region,
            AmazonS3ConfigKey::AccessKeyId,
            AmazonS3ConfigKey::RoleArn,
            AmazonS3ConfigKey::SkipSignature,
            AmazonS3ConfigKey::VirtualHostedStyleRequest,
        ] {
            let value = self.0.get_config_value(&key).unwrap_or_default();
            for byte in value.bytes().chain([0]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
            }
        }
        format!("s3-{hash:016x}")
    }

    fn build(&self, bucket: &str, transport: Transport) -> Result<AmazonS3> {
        let mut builder = self.0.clone().with_bucket_name(bucket).with_http_connector(transport);
        if bucket.contains('.') {
            // A wildcard certificate covers one label only: https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html
            builder = builder.with_virtual_hosted_style_request(false);
        }
        builder.build().map_err(|source| Error::Store {
            operation: "connect to",
            location: format!("s3://{bucket}/"),
            source,
        })
    }
}

impl fmt::Debug for StoreTemplate {
    /// The Debug of [`AmazonS3Builder`] prints secret and token; this prints neither.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreTemplate").field("scheme", &self.scheme()).finish_non_exhaustive()
    }
}

/// One bucket of a connector: what listings ask, and what the stores that plans read from have in common.
pub(crate) struct BucketStore {
    bucket: String,
    scheme: String,
    s3: Arc<AmazonS3>,
    /// The stores that plans were made with, oldest first. Guards the list only.
    pinned: Mutex<Vec<Arc<PinnedStore>>>,
}

impl BucketStore {
    /// The bucket's name.
    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The store without pins.
    pub(crate) fn s3(&self) -> &AmazonS3 {
        &self.s3
    }

    /// A store for a plan, which reads these versions of these objects and no others.
    ///
    /// Plans share a store as long as they agree about the versions of objects. Where they do not, since an object was
    /// replaced between them, the later one gets a store of its own: the earlier one may still be executed.
    pub(crate) fn pin(&self, objects: &[&ObjectMeta]) -> Result<Arc<PinnedStore>> {
        /// Numbers the stores of this process: two connectors with the same settings do not know each other's pins.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut stores = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.iter().rev().find(|store| store.try_pin(objects)) {
            return Ok(Arc::clone(store));
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let store = Arc::new(PinnedStore {
            bucket: self.bucket.clone(),
            url: ObjectStoreUrl::parse(format!("{}-{number}://{}", self.scheme, self.bucket))?,
            s3: Arc::clone(&self.s3),
            pins: RwLock::default(),
        });
        store.try_pin(objects);
        stores.push(Arc::clone(&store));
        Ok(store)
    }

    /// The store that a plan names: with its pins if it was made by this connector, without them if by one elsewhere.
    fn reader(&self, url: &Url) -> Arc<dyn ObjectStore> {
        let stores = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        let is_named = |store: &&Arc<PinnedStore>| store.url.as_str().split(':').next() == Some(url.scheme());
        match stores.iter().find(is_named) {
            Some(store) => Arc::clone(store) as Arc<dyn ObjectStore>,
            None => Arc::clone(&self.s3) as Arc<dyn ObjectStore>,
        }
    }
}

impl fmt::Debug for BucketStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketStore").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

/// What plans read from: a bucket whose objects are bound to the versions that were listed.
///
/// A read of an object that a plan has pinned says If-Match, so that an object which is replaced meanwhile is an error
/// and never a mixture of two. Stock sources other than Parquet's know only a path when they read, hence the table of
/// pins here.
pub(crate) struct PinnedStore {
    bucket: String,
    url: ObjectStoreUrl,
    s3: Arc<AmazonS3>,
    /// The etag that each planned object was listed with; never another for the same object. Guards the map only.
    pins: RwLock<HashMap<Path, Option<String>>>,
}

impl PinnedStore {
    /// The URL that plans name this store by.
    pub(crate) fn url(&self) -> &ObjectStoreUrl {
        &self.url
    }

    /// Makes this store known to the runtime that will execute a plan.
    pub(crate) fn register(self: &Arc<Self>, runtime: &RuntimeEnv) {
        if runtime.object_store(&self.url).is_err() {
            runtime.register_object_store(self.url.as_ref(), Arc::clone(self) as Arc<dyn ObjectStore>);
        }
    }

    /// Binds later reads of these objects to these versions, unless one of them is bound to another.
    fn try_pin(&self, objects: &[&ObjectMeta]) -> bool {
        let mut pins = self.pins.write().unwrap_or_else(PoisonError::into_inner);
        if objects.iter().any(|object| pins.get(&object.location).is_some_and(|etag| *etag != object.e_tag)) {
            return false;
        }
        pins.extend(objects.iter().map(|object| (object.location.clone(), object.e_tag.clone())));
        true
    }

    fn pinned(&self, location: &Path) -> Option<String> {
        self.pins.read().unwrap_or_else(PoisonError::into_inner).get(location).cloned().flatten()
    }

    /// An error of a read, which stock sources pass on, with what to do about it.
    fn explain(&self, location: &Path, source: object_store::Error) -> object_store::Error {
        let explain = |source| Box::new(Error::from_store("GET", format!("s3://{}/{location}", self.bucket), source));
        let path = location.to_string();
        match source {
            object_store::Error::Precondition { .. } => {
                object_store::Error::Precondition { path, source: explain(source) }
            }
            object_store::Error::NotFound { .. } => object_store::Error::NotFound { path, source: explain(source) },
            source => source,
        }
    }
}

impl fmt::Debug for PinnedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedStore").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

impl fmt::Display for PinnedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str())
    }
}

#[async_trait]
impl ObjectStore for PinnedStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.s3.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.s3.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, mut options: GetOptions) -> object_store::Result<GetResult> {
        if options.if_match.is_none() {
            options.if_match = self.pinned(location);
        }
        self.s3.get_opts(location, options).await.map_err(|source| self.explain(location, source))
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.s3.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.s3.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.s3.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.s3.copy_opts(from, to, options).await
    }
}
