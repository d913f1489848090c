//! [`PinnedStore`]: what plans read from.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use super::decompress;
use super::reads::{ReadError, Reads};
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
    reads: Arc<Reads>,
    /// What each planned object was listed with, and never another version of the same object; `None` after
    /// [`expire`](Self::expire). Guards the map only.
    pins: RwLock<Option<HashMap<Path, ObjectMeta>>>,
    /// The runtimes that know this store. Guards the list only.
    runtimes: Mutex<Vec<Weak<RuntimeEnv>>>,
}

impl PinnedStore {
    /// A store without pins yet.
    pub(super) fn new(bucket: &str, url: ObjectStoreUrl, s3: Arc<AmazonS3>, reads: Arc<Reads>) -> Self {
        let (bucket, pins) = (bucket.to_owned(), RwLock::new(Some(HashMap::new())));
        Self { bucket, url, s3, reads, pins, runtimes: Mutex::default() }
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
        let is_other = |known: &ObjectMeta, object: &ObjectMeta| {
            known.e_tag != object.e_tag
                || known.size != object.size
                || (known.e_tag.is_none() && known.last_modified != object.last_modified)
        };
        if objects.iter().any(|object| pins.get(&object.location).is_some_and(|known| is_other(known, object))) {
            return false;
        }
        for &object in objects {
            if !pins.contains_key(&object.location) {
                pins.insert(object.location.clone(), object.clone());
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

    /// The version that an object is bound to, if it is.
    fn pinned(&self, location: &Path) -> object_store::Result<Option<ObjectMeta>> {
        match &*self.pins.read().unwrap_or_else(PoisonError::into_inner) {
            Some(pins) => Ok(pins.get(location).cloned()),
            None => Err(object_store::Error::Generic {
                store: "S3",
                source: "the plan is older than many changes of the bucket; plan the query again".into(),
            }),
        }
    }

    /// A range of the version that an object is bound to, as a stream.
    fn stream(&self, object: ObjectMeta, range: Range<u64>) -> GetResult {
        let name = format!("s3://{}/{}", self.bucket, object.location);
        let location = object.location.clone();
        let chunks = self.reads.stream(object.clone(), range.clone());
        let chunks = chunks.map_err(move |source| explain(&name, &location, source)).boxed();
        GetResult { payload: GetResultPayload::Stream(chunks), meta: object, range, attributes: Attributes::default() }
    }
}

/// The bytes that a plain read asks for of an object of this size; `None` for a read with conditions, or of nothing.
fn plain_range(options: &GetOptions, size: u64) -> Option<Range<u64>> {
    let GetOptions { if_match: None, if_none_match: None, version: None, head: false, .. } = options else {
        return None;
    };
    if options.if_modified_since.is_some() || options.if_unmodified_since.is_some() {
        return None;
    }
    let range = match &options.range {
        None => 0..size,
        Some(GetRange::Bounded(range)) => range.start..range.end.min(size),
        Some(GetRange::Offset(start)) => *start..size,
        Some(GetRange::Suffix(length)) => size.saturating_sub(*length)..size,
    };
    (!range.is_empty()).then_some(range)
}

/// An error of a read, which stock sources pass on, with what to do about it.
fn explain(name: &str, location: &Path, source: ReadError) -> object_store::Error {
    let path = location.to_string();
    let explained = Box::new(Error::from_store("GET", name, Arc::clone(&source)));
    match *source {
        object_store::Error::Precondition { .. } => object_store::Error::Precondition { path, source: explained },
        object_store::Error::NotFound { .. } => object_store::Error::NotFound { path, source: explained },
        _ => object_store::Error::Generic { store: "S3", source: explained },
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
    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let is_whole = options.range.is_none() && !options.head;
        let pinned = self.pinned(location)?;
        let range = pinned.as_ref().and_then(|object| plain_range(&options, object.size));
        let answer = match (pinned, range) {
            (Some(object), Some(range)) => self.stream(object, range),
            (pinned, _) => {
                let if_match = options.if_match.clone().or_else(|| pinned.and_then(|object| object.e_tag));
                let name = format!("s3://{}/{location}", self.bucket);
                let answer = self.s3.get_opts(location, GetOptions { if_match, ..options }).await;
                answer.map_err(|source| explain(&name, location, Arc::new(source)))?
            }
        };
        Ok(if is_whole { decompress::decompressed(location, answer).await } else { answer })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        match self.pinned(location)? {
            Some(object) => {
                let name = format!("s3://{}/{location}", self.bucket);
                let read = self.reads.ranges(&object, ranges).await;
                read.map_err(|source| explain(&name, location, source))
            }
            None => self.s3.get_ranges(location, ranges).await,
        }
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
