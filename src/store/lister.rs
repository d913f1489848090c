//! Listings: ListObjectsV2, page by page.

use std::collections::BTreeSet;

use object_store::ObjectStoreExt;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;

use super::BucketStore;
use super::listing::{ListedObject, ListingPage, PageSlot};
use crate::error::{Error, Result};
use crate::location::S3Location;

/// What lies in a folder, one level deep.
#[derive(Debug, Default)]
pub(crate) struct FolderListing {
    /// Names of the folders in it, without the `/`, in order. The folder of keys like `folder//x` has an empty name.
    pub(crate) folders: BTreeSet<String>,
    /// The objects in it, in order of their keys.
    pub(crate) objects: Vec<ListedObject>,
}

impl FolderListing {
    fn add(&mut self, folder: &S3Location, page: ListingPage) {
        self.objects.extend(page.objects);
        let children = page.common_prefixes.iter().filter_map(|prefix| prefix.strip_prefix(folder.key()));
        // Some stores name the folder itself.
        self.folders.extend(children.filter_map(|child| child.strip_suffix('/')).map(str::to_owned));
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
        listing.objects.sort_by(|a, b| a.key.cmp(&b.key));
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
        is_past: impl Fn(&ListedObject) -> bool,
    ) -> Result<Vec<ListedObject>> {
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
    pub(crate) async fn find_object(&self, location: &S3Location) -> Result<Option<ListedObject>> {
        let mut pages = Pages::new(self, location, Some("/"));
        pages.max_keys = Some(1);
        let page = match pages.next().await {
            Err(denied @ Error::AccessDenied { .. }) => {
                let Ok(path) = Path::parse(location.key()) else { return Err(denied) };
                return self.s3().head(&path).await.map(|object| Some(object.into())).map_err(|_| denied);
            }
            page => page?,
        };
        Ok(page.and_then(|page| page.objects.into_iter().find(|object| object.key == location.key())))
    }
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
    pub(crate) async fn next(&mut self) -> Result<Option<ListingPage>> {
        let page_token = match &self.next {
            Next::First => None,
            Next::After(token) => Some(token.clone()),
            Next::End => return Ok(None),
        };
        let slot = PageSlot::default();
        let mut options = PaginatedListOptions {
            delimiter: self.delimiter.map(Into::into),
            max_keys: self.max_keys,
            offset: self.after.clone(),
            page_token: page_token.clone(),
            ..PaginatedListOptions::default()
        };
        options.extensions.insert(slot.clone());
        let prefix = Some(self.prefix.key()).filter(|prefix| !prefix.is_empty());
        self.store.s3().list_paginated(prefix, options).await.map_err(|source| self.error(source))?;
        let broken = |reason: &str| self.error(object_store::Error::Generic { store: "S3", source: reason.into() });
        let page = slot.take().ok_or_else(|| broken("the answer did not pass our transport"))?;
        if page.continuation_token.is_some() && page.continuation_token == page_token {
            // Following it would never end.
            return Err(broken("the store answered the same continuation token twice"));
        }
        self.next = page.continuation_token.clone().map_or(Next::End, Next::After);
        Ok(Some(page))
    }

    fn error(&self, source: object_store::Error) -> Error {
        Error::from_store("LIST", self.prefix.to_string(), source)
    }
}
