//! [`SchemaHandle`]: a schema as one lookup sees it; [`SessionCatalog`]: a session's catalog that gives such handles.
//!
//! `information_schema.columns` asks a schema for all names and then for one table after the other, and ends at the first
//! error. A query asks for the tables that it names. Both do so on what they got from the catalog, so that a handle that was
//! asked for all names knows that it is being walked: then it opens all tables at once, and passes over those that are broken.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::TableType;
use tokio::sync::OnceCell;

use super::report::InformationSchema;
use super::schema::S3SchemaProvider;
use crate::location::S3Location;
use crate::table::metadata::{MetadataTable, SUFFIX};

/// What one lookup in a catalog got.
#[derive(Debug)]
pub(super) struct SchemaHandle {
    tables: Arc<S3SchemaProvider>,
    is_walked: AtomicBool,
    /// Lets the first table of a walk open all of them.
    opened: OnceCell<()>,
}

impl SchemaHandle {
    pub(super) fn new(tables: Arc<S3SchemaProvider>) -> Self {
        Self { tables, is_walked: AtomicBool::new(false), opened: OnceCell::new() }
    }

    /// The name of the table that a name wants with metadata columns. What lies under the whole name comes first, if a
    /// listing has shown it.
    fn with_metadata<'a>(&self, name: &'a str) -> Option<&'a str> {
        let is_free = S3Location::is_location(name) || !self.tables.has(name);
        name.strip_suffix(SUFFIX).filter(|table| is_free && !table.is_empty())
    }
}

#[async_trait]
impl SchemaProvider for SchemaHandle {
    fn table_names(&self) -> Vec<String> {
        self.is_walked.store(true, Ordering::Relaxed);
        self.tables.shown()
    }

    /// Unknown names are an error, not `None`: DataFusion's own message for `None` could not say what to do.
    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if self.is_walked.load(Ordering::Relaxed) {
            self.opened.get_or_init(|| async { drop(self.tables.open_all(self.tables.shown()).await) }).await;
            return Ok(self.tables.open(name).await.ok().map(|table| table as Arc<dyn TableProvider>));
        }
        if let Some(name) = self.with_metadata(name) {
            return Ok(Some(Arc::new(MetadataTable::new(self.tables.open(name).await?))));
        }
        Ok(Some(self.tables.open(name).await? as Arc<dyn TableProvider>))
    }

    /// The default would open the table; SHOW TABLES asks this of every name.
    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        Ok(self.table_exist(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.has(self.with_metadata(name).unwrap_or(name))
    }
}

/// A catalog of the session, with the schemas of connectors beside its own.
#[derive(Debug)]
pub(crate) struct SessionCatalog {
    inner: Arc<dyn CatalogProvider>,
    /// The schemas of connectors by name. Guards the map only.
    schemas: RwLock<BTreeMap<String, Schema>>,
}

#[derive(Debug, Clone)]
enum Schema {
    Tables(Arc<S3SchemaProvider>),
    Information(Arc<InformationSchema>),
}

impl Schema {
    fn provider(self) -> Arc<dyn SchemaProvider> {
        match self {
            Self::Tables(tables) => Arc::new(SchemaHandle::new(tables)),
            Self::Information(information) => information,
        }
    }
}

impl SessionCatalog {
    pub(crate) fn new(inner: Arc<dyn CatalogProvider>) -> Self {
        Self { inner, schemas: RwLock::default() }
    }

    /// Adds the tables of a connector as a schema, and what was found as `<schema>_information`. Schemas of these names are
    /// replaced.
    pub(crate) fn add(&self, schema: &str, tables: &Arc<S3SchemaProvider>) {
        let information = information_schema(schema);
        for name in [schema, &information] {
            // A catalog that cannot let go of a schema is asked only for others.
            self.inner.deregister_schema(name, true).ok();
        }
        let mut schemas = self.schemas.write().unwrap_or_else(PoisonError::into_inner);
        let of_tables = InformationSchema::new(vec![(schema.to_owned(), Arc::clone(tables))]);
        schemas.insert(information, Schema::Information(Arc::new(of_tables)));
        schemas.insert(schema.to_owned(), Schema::Tables(Arc::clone(tables)));
    }
}

/// The name of the schema that tells what was found for another.
pub(super) fn information_schema(schema: &str) -> String {
    format!("{schema}_information")
}

impl CatalogProvider for SessionCatalog {
    fn schema_names(&self) -> Vec<String> {
        let schemas = self.schemas.read().unwrap_or_else(PoisonError::into_inner);
        let mut names = self.inner.schema_names();
        names.retain(|name| !schemas.contains_key(name));
        names.extend(schemas.keys().cloned());
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let ours = self.schemas.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        ours.map(Schema::provider).or_else(|| self.inner.schema(name))
    }

    fn register_schema(&self, name: &str, schema: Arc<dyn SchemaProvider>) -> Result<Option<Arc<dyn SchemaProvider>>> {
        let before = self.inner.register_schema(name, schema)?;
        let ours = self.schemas.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(ours.map(Schema::provider).or(before))
    }

    fn deregister_schema(&self, name: &str, cascade: bool) -> Result<Option<Arc<dyn SchemaProvider>>> {
        let mut schemas = self.schemas.write().unwrap_or_else(PoisonError::into_inner);
        let Some(ours) = schemas.remove(name) else { return self.inner.deregister_schema(name, cascade) };
        if matches!(ours, Schema::Tables(_)) {
            schemas.remove(&information_schema(name));
        }
        Ok(Some(ours.provider()))
    }
}
