//! [`PinnedStore`]: what plans read from.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use async_trait::async_trait;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::stream::BoxStream;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};

use super::decompress;
use crate::error::Error;

/// A bucket whose objects are bound to the versions that were listed, and decompressed where they are read as a whole.
///
/// A read of an object that a plan has pinned says If-Match, so that an object which is replaced meanwhile is an error
/// and never a mixture of two. Stock sources other than Parquet's know only a path when they read, hence the table of
/// pins here.
pub(crate) struct PinnedStore {
    bucket: String,
    url: ObjectStoreUrl,
    s3: Arc<AmazonS3>,
    /// The etag that each planned object was listed with, and never another for the same object; `None` after
    /// [`expire`](Self::expire). Guards the map only.
    pins: RwLock<Option<HashMap<Path, Option<String>>>>,
    /// The runtimes that know this store. Guards the list only.
    runtimes: Mutex<Vec<Weak<RuntimeEnv>>>,
}

impl PinnedStore {
    /// A store without pins yet.
    pub(super) fn new(bucket: &str, url: ObjectStoreUrl, s3: Arc<AmazonS3>) -> Self {
        Self { bucket: bucket.to_owned(), url, s3, pins: RwLock::new(Some(HashMap::new())), runtimes: Mutex::default() }
    }

    /// The URL that plans name this store by.
    pub(crate) fn url(&self) -> &ObjectStoreUrl {
        &self.url
    }

    /// Makes this store known to the runtime that will execute a plan.
    pub(crate) fn register(self: &Arc<Self>, runtime: &Arc<RuntimeEnv>) {
        let mut runtimes = self.runtimes.lock().unwrap_or_else(PoisonError::into_inner);
        if runtimes.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(runtime))) {
            return;
        }
        runtimes.retain(|known| known.strong_count() > 0);
        runtimes.push(Arc::downgrade(runtime));
        runtime.register_object_store(self.url.as_ref(), Arc::clone(self) as Arc<dyn ObjectStore>);
    }

    /// Binds later reads of these objects to these versions, unless one of them is bound to another.
    pub(super) fn try_pin(&self, objects: &[&ObjectMeta]) -> bool {
        let mut pins = self.pins.write().unwrap_or_else(PoisonError::into_inner);
        let Some(pins) = pins.as_mut() else { return false };
        if objects.iter().any(|object| pins.get(&object.location).is_some_and(|etag| *etag != object.e_tag)) {
            return false;
        }
        for object in objects {
            if !pins.contains_key(&object.location) {
                pins.insert(object.location.clone(), object.e_tag.clone());
            }
        }
        true
    }

    /// Forgets the pins, and leaves the runtimes. A read of what was opened before fails from now on.
    pub(super) fn expire(&self) {
        *self.pins.write().unwrap_or_else(PoisonError::into_inner) = None;
        for runtime in self.runtimes.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if let Some(runtime) = runtime.upgrade() {
                runtime.deregister_object_store(self.url.as_ref()).ok();
            }
        }
    }

    /// The etag that an object is bound to, if it is.
    fn pinned(&self, location: &Path) -> object_store::Result<Option<String>> {
        match &*self.pins.read().unwrap_or_else(PoisonError::into_inner) {
            Some(pins) => Ok(pins.get(location).cloned().flatten()),
            None => Err(object_store::Error::Generic {
                store: "S3",
                source: "the plan is older than many changes of the bucket; plan the query again".into(),
            }),
        }
    }

    /// An error of a read, which stock sources pass on, with what to do about it.
    fn explain(&self, location: &Path, source: object_store::Error) -> object_store::Error {
        let path = location.to_string();
        let explain = |source| Box::new(Error::from_store("GET", self.name(location), source));
        match source {
            object_store::Error::Precondition { .. } => {
                object_store::Error::Precondition { path, source: explain(source) }
            }
            object_store::Error::NotFound { .. } => object_store::Error::NotFound { path, source: explain(source) },
            source => source,
        }
    }

    fn name(&self, location: &Path) -> String {
        format!("s3://{}/{location}", self.bucket)
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
    async fn get_opts(&self, location: &Path, mut options: GetOptions) -> object_store::Result<GetResult> {
        if options.if_match.is_none() {
            options.if_match = self.pinned(location)?;
        }
        let is_whole = options.range.is_none() && !options.head;
        let answer = self.s3.get_opts(location, options).await.map_err(|source| self.explain(location, source))?;
        Ok(if is_whole { decompress::decompressed(location, answer).await } else { answer })
    }

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
