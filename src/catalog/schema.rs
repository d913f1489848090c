//! [`S3SchemaProvider`]: the tables of one folder, opened on first use.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use futures::{StreamExt, stream};
use tokio::sync::OnceCell;

use super::names::{Lookup, Names, NotShown};
use crate::error::{Error, Result, quoted};
use crate::format::FileType;
use crate::location::{S3Location, is_readable};
use crate::store::ListedObject;
use crate::table::layout::Ignored;
use crate::table::{Opener, S3Table};

/// The tables of a folder, or without one all tables by their full S3 paths.
///
/// Names come from an immutable [`Discovery`] that a listing replaces; sync lookups read it and do no I/O. A table is
/// opened on first use, once however many ask, and stays open until its listing is older than the time to live or until
/// the next refresh.
#[derive(Debug)]
pub(crate) struct S3SchemaProvider {
    folder: Option<S3Location>,
    opener: Arc<Opener>,
    /// What other names stand for: the names of children, or without a folder full paths.
    aliases: BTreeMap<String, String>,
    /// What the last listing showed. Guards the pointer only.
    discovery: RwLock<Arc<Discovery>>,
    /// Lets the first of many callers list, and the others wait for it.
    first_listing: OnceCell<()>,
    /// Held while the folder is listed, so that of two listings the later one is kept.
    listing: tokio::sync::Mutex<()>,
}

/// Tables that are opened at the same time.
const OPENINGS_IN_FLIGHT: usize = 64;

/// One listing of a folder, and the tables that were opened since.
#[derive(Debug, Default)]
struct Discovery {
    names: Names,
    /// When the listing began; `None` where nothing was listed.
    listed_at: Option<Instant>,
    /// Opened tables by location. Guards the map only: a table is opened in its cell.
    tables: Mutex<HashMap<S3Location, Arc<OnceCell<Arc<S3Table>>>>>,
}

/// A table, as a listing shows it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) location: S3Location,
    /// What the listing said of it; `None` for a folder.
    pub(super) object: Option<ListedObject>,
    /// The table, where it is open.
    pub(super) table: Option<Arc<S3Table>>,
}

/// Where a name leads.
#[derive(PartialEq)]
struct Target {
    name: String,
    location: S3Location,
    object: Option<ListedObject>,
    /// Whether a listing has shown what lies there.
    is_listed: bool,
}

impl S3SchemaProvider {
    pub(crate) fn new(folder: Option<S3Location>, opener: Arc<Opener>) -> Self {
        let aliases = opener.aliases(folder.as_ref());
        Self {
            folder,
            opener,
            aliases,
            discovery: RwLock::default(),
            first_listing: OnceCell::new(),
            listing: tokio::sync::Mutex::default(),
        }
    }

    /// Forgets the tables that are open, and lists the folder again if it was listed: one request for each 1,000
    /// children. Where that fails, names and tables stay as they are.
    pub(crate) async fn refresh(&self) -> Result<()> {
        if self.is_discovered() {
            self.list().await?;
        }
        self.discovery().tables.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    /// Whether the folder was listed.
    pub(crate) fn is_discovered(&self) -> bool {
        self.first_listing.initialized()
    }

    /// Lists the folder unless it was listed; once for all who ask.
    pub(crate) async fn discover(&self) -> Result<()> {
        self.first_listing.get_or_try_init(|| self.list()).await.copied()
    }

    /// Lists the folder unless it was listed within the time to live; once for all who ask at the same time.
    pub(crate) async fn discover_anew(&self) -> Result<()> {
        let asked = Instant::now();
        self.discover().await?;
        if self.is_believed(&self.discovery()) { Ok(()) } else { self.list_unless_listed_since(asked).await }
    }

    /// Whether a listing is not older than the time to live. There is none without a folder.
    fn is_believed(&self, discovery: &Discovery) -> bool {
        self.folder.is_none() || discovery.listed_at.is_some_and(|at| self.opener.is_believed(at))
    }

    async fn list(&self) -> Result<()> {
        self.list_unless_listed_since(Instant::now()).await
    }

    async fn list_unless_listed_since(&self, asked: Instant) -> Result<()> {
        let _listing = self.listing.lock().await;
        if self.discovery().listed_at.is_some_and(|at| at >= asked) {
            return Ok(());
        }
        let listed_at = Instant::now();
        let names = match &self.folder {
            None => Names::default(),
            Some(folder) => {
                let store = self.opener.stores.bucket(folder.bucket())?;
                Names::new(folder.key(), store.list_folder(folder).await?)
            }
        };
        // A table that is open has a listing of its own.
        let tables = self.discovery().tables.lock().unwrap_or_else(PoisonError::into_inner).clone();
        *self.discovery.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(Discovery { names, listed_at: Some(listed_at), tables: Mutex::new(tables) });
        Ok(())
    }

    /// An error where the folder that was listed holds no tables.
    pub(crate) fn check_not_empty(&self) -> Result<()> {
        let (Some(folder), discovery) = (&self.folder, self.discovery()) else { return Ok(()) };
        let names = &discovery.names;
        if names.shown().next().is_some() {
            return Ok(());
        }
        let root = folder.to_string();
        let reason = if names.is_empty() {
            "nothing lies there; check the spelling, the endpoint and the region (a file's folder, not the file, is a root)".to_owned()
        } else if let Some(mark) = names.table_mark() {
            format!(
                "it is itself {mark}; use the folder above it as the root, or leave the root out and query \"{root}\""
            )
        } else if let Some((example, reason, count)) = names.first_not_shown() {
            format!(
                "none of its {count} entries is data, as \"{example}\" ({reason}); write data there, or query an entry by its full name"
            )
        } else {
            "it is empty; write data there first".to_owned()
        };
        Err(Error::EmptyRoot { root, reason })
    }

    /// The names that are shown, in order.
    pub(crate) fn shown(&self) -> Vec<String> {
        let discovery = self.discovery();
        let aliases = self.aliases.keys().filter(|alias| self.target(&discovery, alias).is_ok()).cloned();
        let mut names: Vec<String> = discovery.names.shown().map(str::to_owned).chain(aliases).collect();
        names.sort();
        names.dedup();
        names
    }

    /// The tables that are shown, in order.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let discovery = self.discovery();
        let tables = discovery.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = |name: String| {
            let Target { location, object, .. } = self.target(&discovery, &name).ok()?;
            let table = tables.get(&location).and_then(|cell| cell.get()).cloned();
            Some(Entry { name, location, object, table })
        };
        self.shown().into_iter().filter_map(entry).collect()
    }

    /// What lies beside the tables, and why it is none.
    pub(super) fn ignored(&self) -> Vec<(S3Location, Option<ListedObject>, String)> {
        let (Some(folder), discovery) = (&self.folder, self.discovery()) else { return Vec::new() };
        let names = &discovery.names;
        let ignored = names
            .ignored()
            .map(|(full_name, reason)| (folder.join(full_name), names.object(full_name).cloned(), reason.to_string()));
        ignored.collect()
    }

    pub(super) fn opener(&self) -> &Arc<Opener> {
        &self.opener
    }

    /// Opens these tables, many at a time.
    pub(super) async fn open_all(&self, names: Vec<String>) -> Vec<Result<Arc<S3Table>>> {
        let openings: Vec<_> = names.iter().map(|name| self.open(name)).collect();
        stream::iter(openings).buffered(OPENINGS_IN_FLIGHT).collect().await
    }

    /// Whether a name leads somewhere. Without a root any full path may.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.target(&self.discovery(), name).is_ok()
    }

    /// Lists the folder unless it was listed, or the name is a full path: that one can be read where the folder cannot be
    /// listed.
    async fn discover_for(&self, name: &str) -> Result<()> {
        if S3Location::is_location(name) { Ok(()) } else { self.discover().await }
    }

    /// As [`has`](Self::has), by a listing within the time to live.
    pub(crate) async fn has_anew(&self, name: &str) -> Result<bool> {
        if !S3Location::is_location(name) {
            self.discover_anew().await?;
        }
        Ok(self.has(name))
    }

    /// Opens the table of that name, once for all who ask. Lists the folder first where that has not succeeded yet, and
    /// again where the name leads nowhere by a listing that is older than the time to live.
    pub(crate) async fn open(&self, name: &str) -> Result<Arc<S3Table>> {
        let asked = Instant::now();
        self.discover_for(name).await?;
        let discovery = self.discovery();
        let opened = self.open_by(&discovery, name, asked).await;
        if opened.is_ok() || S3Location::is_location(name) || self.is_believed(&discovery) {
            return opened;
        }
        self.list_unless_listed_since(asked).await?;
        let latest = self.discovery();
        // What still leads to the same place has failed there.
        match (self.target(&discovery, name), self.target(&latest, name)) {
            (Ok(before), Ok(now)) if before == now => opened,
            _ => self.open_by(&latest, name, asked).await,
        }
    }

    async fn open_by(&self, discovery: &Discovery, name: &str, asked: Instant) -> Result<Arc<S3Table>> {
        let target = self.target(discovery, name)?;
        let location = target.location.clone();
        let (cell, outdated) = {
            let mut tables = discovery.tables.lock().unwrap_or_else(PoisonError::into_inner);
            let cell = tables.entry(location.clone()).or_default();
            let is_current =
                |table: &&Arc<S3Table>| table.listed_at() >= asked || self.opener.is_believed(table.listed_at());
            let outdated = cell.get().filter(|table| !is_current(table)).cloned();
            if outdated.is_some() {
                *cell = Arc::default();
            }
            (Arc::clone(cell), outdated)
        };
        let open = || async { self.open_target(discovery, target, outdated).await.map(Arc::new) };
        let opened = cell.get_or_try_init(open).await;
        if opened.is_err() {
            // Names that lead nowhere must not pile up.
            let mut tables = discovery.tables.lock().unwrap_or_else(PoisonError::into_inner);
            if tables.get(&location).is_some_and(|cell| !cell.initialized()) {
                tables.remove(&location);
            }
        }
        opened.cloned()
    }

    /// Opens what lies at a target; `outdated` is the table as it was open before.
    async fn open_target(
        &self,
        discovery: &Discovery,
        target: Target,
        outdated: Option<Arc<S3Table>>,
    ) -> Result<S3Table> {
        let Target { name, location, object, is_listed } = target;
        if let (Some(object), Some(listed_at)) = (object, discovery.listed_at) {
            if self.opener.is_believed(listed_at) {
                return self.opener.open(&name, &location, Some((object, listed_at))).await;
            }
            return self.opener.open_object(&name, &location).await;
        }
        if is_listed || location.is_folder() {
            return self.opener.open(&name, &location, None).await;
        }
        if outdated.is_some_and(|table| *table.location() == location) {
            return self.opener.open_object(&name, &location).await;
        }
        // A path that no listing has shown is an object or a folder. Its name makes one of them likelier.
        let store = self.opener.stores.bucket(location.bucket())?;
        let looks_like_object = FileType::from_name(location.key()).is_some();
        let now = Instant::now();
        if looks_like_object && let Some(object) = self.opener.find(&location).await? {
            return self.opener.open(&name, &location, Some((object, now))).await;
        }
        match self.opener.open(&name, &location.to_folder(), None).await {
            Err(Error::NotATable { reason, .. }) if !looks_like_object => match store.find_object(&location).await? {
                Some(object) => self.opener.open(&name, &location, Some((object, now))).await,
                None => Err(Error::NotATable { location: location.to_folder().to_string(), reason }),
            },
            opened => opened,
        }
    }

    fn target(&self, discovery: &Discovery, name: &str) -> Result<Target> {
        if S3Location::is_location(name) {
            return self.full_path(name);
        }
        let alias = self.aliases.get(name);
        let Some(folder) = &self.folder else {
            if let Some(path) = alias {
                return Ok(Target { name: name.to_owned(), ..self.full_path(path)? });
            }
            return Err(self.not_found(
                name,
                "without a root, a table is named by its full path, as \"s3://bucket/articles.parquet\"".into(),
            ));
        };
        let mut found = discovery.names.find(name);
        // The name of a child comes before that of another.
        if let (Lookup::Missing, Some(child)) = (&found, alias) {
            found = discovery.names.find(child);
        }
        match found {
            Lookup::Found { name, full_name } => Ok(Target {
                name: name.to_owned(),
                location: folder.join(full_name),
                object: discovery.names.object(full_name).cloned(),
                is_listed: true,
            }),
            Lookup::Ambiguous(candidates) => {
                Err(Error::AmbiguousName { table: name.to_owned(), place: folder.to_string(), candidates })
            }
            Lookup::Missing => Err(self.not_found(name, hint(&discovery.names, name))),
        }
    }

    fn full_path(&self, name: &str) -> Result<Target> {
        let location: S3Location = name.parse()?;
        let key = location.key();
        if !key.is_empty() && !is_readable(key.strip_suffix('/').unwrap_or(key)) {
            let reason = "a key with an empty segment, . or .., or a control character cannot be read; write the path without it, or copy the object to another key".to_owned();
            return Err(Error::InvalidLocation { location: name.to_owned(), reason });
        }
        if let Some(folder) = &self.folder
            && folder.relative(&location).is_none()
        {
            let reason =
                format!("it lies outside of the root {folder}; use a connector without a root, or with another");
            return Err(Error::InvalidLocation { location: name.to_owned(), reason });
        }
        Ok(Target { name: name.to_owned(), location, object: None, is_listed: false })
    }

    fn not_found(&self, name: &str, hint: String) -> Error {
        let place = self.folder.as_ref().map_or_else(|| "S3".to_owned(), ToString::to_string);
        Error::TableNotFound { table: name.to_owned(), place, hint }
    }

    fn discovery(&self) -> Arc<Discovery> {
        Arc::clone(&self.discovery.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a name that leads nowhere might have meant.
fn hint(names: &Names, name: &str) -> String {
    const SHOWN: usize = 10;
    if let Some((full_name, reason)) = names.not_shown(name) {
        if matches!(reason, NotShown::UnreadableFolder | NotShown::Object(Ignored::UnreadableKey)) {
            return format!("\"{full_name}\" is ignored ({reason}); copy it to another key");
        }
        if reason == NotShown::Object(Ignored::Empty) {
            return format!("\"{full_name}\" is ignored ({reason}); write it again, then refresh the connector");
        }
        return format!("\"{full_name}\" is ignored ({reason}); query \"{full_name}\" to read it all the same");
    }
    let tables: Vec<&str> = names.shown().take(SHOWN + 1).collect();
    match tables.len() {
        0 => "there are no tables; refresh the connector after data was written".to_owned(),
        count if count > SHOWN => {
            format!(
                "there are {}, and others; SHOW TABLES lists all, refresh the connector for new ones",
                quoted(&tables[..SHOWN])
            )
        }
        _ => format!("there is {}; refresh the connector for new ones", quoted(&tables)),
    }
}
