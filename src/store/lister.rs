//! Listings: ListObjectsV2, page by page.

use std::collections::BTreeSet;

use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::BucketStore;
use crate::error::{Error, Result};
use crate::location::S3Location;

/// What lies in a folder, one level deep.
#[derive(Debug, Default)]
pub(crate) struct FolderListing {
    /// Names of the folders in it, without the `/`, in order.
    pub(crate) folders: BTreeSet<String>,
    /// The objects in it, in order of their keys.
    pub(crate) objects: Vec<ObjectMeta>,
}

impl FolderListing {
    fn add(&mut self, folder: &S3Location, page: Page) {
        self.objects.extend(page.objects);
        // `object_store` drops the `/` at the end of a common prefix. Some stores name the folder itself.
        let prefixes = page.common_prefixes.iter().filter_map(|prefix| prefix.as_ref().strip_prefix(folder.key()));
        self.folders.extend(prefixes.filter(|child| !child.is_empty()).map(str::to_owned));
    }
}

impl BucketStore {
    /// Lists the children of a folder: one request for each 1,000 of them, whatever lies below.
    pub(crate) async fn list_folder(&self, folder: &S3Location) -> Result<FolderListing> {
        let mut listing = FolderListing::default();
        let mut pages = Pages::new(self, folder, Some("/"));
        while let Some(page) = pages.next().await? {
            listing.add(folder, page);
        }
        listing.objects.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(listing)
    }

    /// Lists the first children of a folder: one request.
    pub(crate) async fn list_first_children(&self, folder: &S3Location) -> Result<FolderListing> {
        let mut listing = FolderListing::default();
        if let Some(page) = Pages::new(self, folder, Some("/")).next().await? {
            listing.add(folder, page);
        }
        Ok(listing)
    }

    /// The pages of all objects below a folder, at any depth.
    pub(crate) fn list_objects<'a>(&'a self, folder: &'a S3Location) -> Pages<'a> {
        Pages::new(self, folder, None)
    }

    /// The objects below a folder whose keys come after `after`, in order, up to the first that `is_past`: one request for
    /// each 1,000 of them.
    pub(crate) async fn list_run(
        &self,
        folder: &S3Location,
        after: &str,
        is_past: impl Fn(&ObjectMeta) -> bool,
    ) -> Result<Vec<ObjectMeta>> {
        let mut objects = Vec::new();
        let mut pages = Pages::new(self, folder, None);
        pages.after = Some(after.to_owned());
        while let Some(page) = pages.next().await? {
            let end = page.objects.iter().position(&is_past);
            objects.extend(page.objects.into_iter().take(end.unwrap_or(usize::MAX)));
            if end.is_some() {
                break;
            }
        }
        Ok(objects)
    }

    /// The object with exactly this key, by one LIST of at most one key: the key itself comes first among all keys that
    /// start with it. Where listing is not permitted, by one HEAD.
    pub(crate) async fn find_object(&self, location: &S3Location) -> Result<Option<ObjectMeta>> {
        let mut pages = Pages::new(self, location, Some("/"));
        pages.max_keys = Some(1);
        let page = match pages.next().await {
            Err(denied @ Error::AccessDenied { .. }) => {
                let Ok(path) = Path::parse(location.key()) else { return Err(denied) };
                return self.s3().head(&path).await.map(Some).map_err(|_| denied);
            }
            page => page?,
        };
        Ok(page.and_then(|page| page.objects.into_iter().find(|object| object.location.as_ref() == location.key())))
    }
}

/// One page of a listing.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) objects: Vec<ObjectMeta>,
    common_prefixes: Vec<Path>,
    /// Whether another page follows.
    pub(crate) is_truncated: bool,
}

/// A listing that is read page by page.
#[derive(Debug)]
pub(crate) struct Pages<'a> {
    store: &'a BucketStore,
    prefix: &'a S3Location,
    delimiter: Option<&'static str>,
    max_keys: Option<usize>,
    /// The key that the listing begins after.
    after: Option<String>,
    next: Next,
}

#[derive(Debug)]
enum Next {
    First,
    After(String),
    End,
}

impl<'a> Pages<'a> {
    fn new(store: &'a BucketStore, prefix: &'a S3Location, delimiter: Option<&'static str>) -> Self {
        Self { store, prefix, delimiter, max_keys: None, after: None, next: Next::First }
    }

    /// The next page, or `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Page>> {
        let page_token = match &self.next {
            Next::First => None,
            Next::After(token) => Some(token.clone()),
            Next::End => return Ok(None),
        };
        let options = PaginatedListOptions {
            delimiter: self.delimiter.map(Into::into),
            max_keys: self.max_keys,
            offset: self.after.clone(),
            page_token: page_token.clone(),
            ..PaginatedListOptions::default()
        };
        let prefix = Some(self.prefix.key()).filter(|prefix| !prefix.is_empty());
        let page = self.store.s3().list_paginated(prefix, options).await.map_err(|source| self.error(source))?;
        if page.page_token.is_some() && page.page_token == page_token {
            // Following it would never end.
            return Err(self.error(object_store::Error::Generic {
                store: "S3",
                source: "the store answered the same continuation token twice".into(),
            }));
        }
        let is_truncated = page.page_token.is_some();
        self.next = page.page_token.map_or(Next::End, Next::After);
        Ok(Some(Page { objects: page.result.objects, common_prefixes: page.result.common_prefixes, is_truncated }))
    }

    fn error(&self, source: object_store::Error) -> Error {
        Error::from_store("LIST", self.prefix.to_string(), source)
    }
}
