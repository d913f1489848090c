//! From settings to a store: one [`BucketStore`] for each bucket, built on first use.

mod decompress;
mod lister;
mod transport;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

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
    /// The scheme of store URLs without the connector's own number, the same on every machine.
    fingerprint: String,
    /// The scheme of this connector's store URLs, which no other connector of the process has: two connectors on one
    /// bucket never meet, whatever their credentials.
    scheme: String,
    counters: Arc<Counters>,
    /// Guards the map only; building a store does no I/O.
    buckets: RwLock<HashMap<String, Arc<BucketStore>>>,
}

impl Stores {
    /// Reads the environment where the settings allow it, and checks what can be checked without I/O.
    pub(crate) fn try_new(settings: &ConnectorSettings) -> Result<Self> {
        static CONNECTORS: AtomicU64 = AtomicU64::new(0);

        let unicode = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        let template = StoreTemplate::try_new(settings, || std::env::vars_os().filter_map(unicode))?;
        let fingerprint = template.fingerprint();
        let scheme = format!("{fingerprint}-{}", CONNECTORS.fetch_add(1, Ordering::Relaxed));
        Ok(Self { template, fingerprint, scheme, counters: Arc::default(), buckets: RwLock::default() })
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
        let url = ObjectStoreUrl::parse(format!("{}://{bucket}", self.scheme))?;
        let s3 = Arc::new(self.template.build(bucket, Transport::new(Arc::clone(&self.counters)))?);
        let store = Arc::new(BucketStore { bucket: bucket.to_owned(), url, s3, pins: RwLock::default() });
        buckets.insert(bucket.to_owned(), Arc::clone(&store));
        Ok(store)
    }

    /// Whether a store URL's scheme stands for a connector with these settings, in this process or another.
    fn is_ours(&self, scheme: &str) -> bool {
        scheme.strip_prefix(&self.fingerprint).is_some_and(|rest| rest.starts_with('-'))
    }

    /// Makes a bucket known to a DataFusion runtime: under this connector's own URL, which its plans refer to, and
    /// without pins under `s3://bucket` where nobody else has claimed that (so that `COPY … TO 's3://bucket/…'` works).
    pub(crate) fn register(&self, bucket: &str, runtime: &RuntimeEnv) -> Result<Arc<BucketStore>> {
        let store = self.bucket(bucket)?;
        if runtime.object_store(store.url()).is_err() {
            runtime.register_object_store(store.url().as_ref(), Arc::clone(&store) as Arc<dyn ObjectStore>);
        }
        let plain = ObjectStoreUrl::parse(format!("s3://{bucket}"))?;
        if runtime.object_store(&plain).is_err() {
            runtime.register_object_store(plain.as_ref(), Arc::clone(&store.s3) as Arc<dyn ObjectStore>);
        }
        Ok(store)
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
            Some(bucket) if registered.is_err() && self.stores.is_ours(url.scheme()) => {
                Ok(self.stores.bucket(bucket)?)
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
    fn fingerprint(&self) -> String {
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
        f.debug_struct("StoreTemplate").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

/// One bucket: what plans read from, and what listings ask.
///
/// A read of an object that a plan has pinned says If-Match, so that an object which is replaced meanwhile is an error
/// and never a mixture of two. Stock sources other than Parquet's know only a path when they read, hence the table of
/// pins here.
pub(crate) struct BucketStore {
    bucket: String,
    url: ObjectStoreUrl,
    s3: Arc<AmazonS3>,
    /// The etag that each planned object was listed with. Guards the map only.
    pins: RwLock<HashMap<Path, String>>,
}

impl BucketStore {
    /// The URL that plans name this store by.
    pub(crate) fn url(&self) -> &ObjectStoreUrl {
        &self.url
    }

    /// The bucket's name.
    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    fn s3(&self) -> &AmazonS3 {
        &self.s3
    }

    /// Binds later reads of these objects to the versions that were listed.
    pub(crate) fn pin<'a>(&self, objects: impl Iterator<Item = &'a ObjectMeta>) {
        let mut pins = self.pins.write().unwrap_or_else(PoisonError::into_inner);
        for object in objects {
            match &object.e_tag {
                Some(etag) => pins.insert(object.location.clone(), etag.clone()),
                None => pins.remove(&object.location),
            };
        }
    }

    fn pinned(&self, location: &Path) -> Option<String> {
        self.pins.read().unwrap_or_else(PoisonError::into_inner).get(location).cloned()
    }
}

impl fmt::Debug for BucketStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketStore").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

impl fmt::Display for BucketStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str())
    }
}

#[async_trait]
impl ObjectStore for BucketStore {
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
        let is_whole = options.range.is_none() && !options.head;
        let answer = self.s3.get_opts(location, options).await?;
        Ok(if is_whole { decompress::decompressed(location, answer).await } else { answer })
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
