//! Names: which tables lie in a folder, and the providers that DataFusion asks for them.

mod handle;
mod names;
mod report;
mod schema;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use datafusion::catalog::{CatalogProvider, SchemaProvider};
use futures::{StreamExt, stream};

use self::handle::SchemaHandle;
pub(crate) use self::handle::SessionCatalog;
use self::report::InformationSchema;
pub(crate) use self::schema::S3SchemaProvider;
use crate::error::{Error, Result};
use crate::location::S3Location;
use crate::table::Opener;
use crate::table::layout;

/// Folders that are listed at the same time.
const LISTINGS_IN_FLIGHT: usize = 64;

/// A catalog whose schemas are the folders of a root. Lookups do no I/O; [`refresh`](Self::refresh) lists.
#[derive(Debug)]
pub(crate) struct S3CatalogProvider {
    root: S3Location,
    opener: Arc<Opener>,
    /// The name of the schema that tells what was found.
    information: String,
    /// The schemas by name. Guards the map only.
    schemas: RwLock<BTreeMap<String, Arc<S3SchemaProvider>>>,
}

impl S3CatalogProvider {
    pub(crate) fn new(root: S3Location, opener: Arc<Opener>, name: &str) -> Self {
        Self { root, opener, information: handle::information_schema(name), schemas: RwLock::default() }
    }

    /// Lists the root, then its folders, many at a time.
    ///
    /// A folder whose first listing fails is a schema without tables, which is listed again when a table of it is asked
    /// for. One whose later listing fails keeps its names, and the error is returned when all others have been listed.
    pub(crate) async fn refresh(&self) -> Result<()> {
        let store = self.opener.stores.bucket(self.root.bucket())?;
        let listing = store.list_folder(&self.root).await?;
        let known = self.schemas.read().unwrap_or_else(PoisonError::into_inner).clone();
        let is_schema = |folder: &String| !layout::is_hidden(folder) && !folder.contains('=');
        let listed: Vec<(String, Arc<S3SchemaProvider>, Result<()>)> =
            stream::iter(listing.folders.into_iter().filter(is_schema))
                .map(|folder| {
                    let known = known.get(&folder).cloned();
                    async move {
                        let location = self.root.join(&folder).to_folder();
                        let schema = known.unwrap_or_else(|| {
                            Arc::new(S3SchemaProvider::new(Some(location), Arc::clone(&self.opener)))
                        });
                        if schema.is_discovered() {
                            let outcome = schema.refresh().await;
                            return (folder, schema, outcome);
                        }
                        schema.discover().await.ok();
                        (folder, schema, Ok(()))
                    }
                })
                .buffer_unordered(LISTINGS_IN_FLIGHT)
                .collect()
                .await;
        let (mut schemas, mut outcome) = (BTreeMap::new(), Ok(()));
        for (folder, schema, listed) in listed {
            schemas.insert(folder, schema);
            outcome = outcome.and(listed);
        }
        if schemas.is_empty() {
            return Err(Error::EmptyRoot {
                root: self.root.to_string(),
                reason: "it has no folders, which are the schemas of a catalog; use register for a root whose children are tables".into(),
            });
        }
        *self.schemas.write().unwrap_or_else(PoisonError::into_inner) = schemas;
        outcome
    }
}

impl CatalogProvider for S3CatalogProvider {
    fn schema_names(&self) -> Vec<String> {
        let schemas = self.schemas.read().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<String> = schemas.keys().cloned().collect();
        // A folder of that name is what it was.
        if !schemas.contains_key(&self.information) {
            names.push(self.information.clone());
        }
        names
    }

    /// The schema of that name: exactly, else without regard to case where just one matches.
    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let schemas = self.schemas.read().unwrap_or_else(PoisonError::into_inner);
        if name == self.information && !schemas.contains_key(name) {
            let schemas = schemas.iter().map(|(name, tables)| (name.clone(), Arc::clone(tables)));
            return Some(Arc::new(InformationSchema::new(schemas.collect())));
        }
        let found = schemas.get(name).or_else(|| {
            let folded = name.to_lowercase();
            let mut alike = schemas.iter().filter(|(known, _)| known.to_lowercase() == folded);
            alike.next().map(|(_, schema)| schema).filter(|_| alike.next().is_none())
        })?;
        Some(Arc::new(SchemaHandle::new(Arc::clone(found))))
    }
}
