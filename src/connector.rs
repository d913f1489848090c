//! [`S3Connector`]: from an S3 root to tables in a DataFusion session.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::prelude::SessionContext;

use crate::catalog::{S3CatalogProvider, S3SchemaProvider, SessionCatalog};
use crate::error::{Error, Result};
use crate::location::S3Location;
use crate::scan::{FooterCache, InFlight};
use crate::settings::{ArchivedObjects, ConnectorSettings, SchemaPolicy, Secret, Subfolders, TableSettings};
use crate::store::{CacheUse, RequestCounts, S3StoreRegistry, Stores};
use crate::table::layout::Rules;
use crate::table::{Opener, S3Table, SchemaCache, TableOptions};

/// A source of tables: every file and every folder of files under an S3 root.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use datafusion::prelude::SessionContext;
/// use datafusion_s3::S3Connector;
///
/// let ctx = SessionContext::new();
/// let s3 = S3Connector::builder().with_root("s3://bucket/shop").build()?; // no I/O
/// s3.register(&ctx, "s3").await?; // one LIST
/// ctx.sql("SELECT * FROM s3.articles LIMIT 10").await?.show().await?; // opens one table
/// # Ok(())
/// # }
/// ```
///
/// Without a root, a table's name is its full S3 path: `SELECT * FROM s3."s3://bucket/shop/articles.parquet"`.
///
/// A clone is the same connector: names, open tables and counters are shared.
#[derive(Debug, Clone)]
pub struct S3Connector {
    name: String,
    root: Option<S3Location>,
    opener: Arc<Opener>,
    tables: Arc<S3SchemaProvider>,
    /// The catalog that `register_catalog` made. Guards the pointer only.
    catalog: Arc<RwLock<Option<Arc<S3CatalogProvider>>>>,
}

impl S3Connector {
    /// A builder with default settings: no root, everything else from the `AWS_*` environment.
    pub fn builder() -> S3ConnectorBuilder {
        S3ConnectorBuilder::default()
    }

    /// The connector's name; `s3` unless set.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kind of source behind the connector: always `s3`.
    pub fn source_type(&self) -> &'static str {
        "s3"
    }

    /// The folder whose children are the tables, if there is one.
    pub fn root(&self) -> Option<&S3Location> {
        self.root.as_ref()
    }

    /// Puts the tables into `schema` of the session's default catalog, so that `schema.table` names them in SQL, and what was
    /// found and why into `<schema>_information`: the tables `tables`, `details` (which opens each) and `objects` (which lists).
    /// `<table>$metadata` is a table with columns that tell where each row comes from.
    ///
    /// The session gets a default catalog that has these schemas and leaves all others to the one that was there.
    ///
    /// Costs one LIST for each 1,000 children of the root, and nothing without a root or where the connector has listed
    /// within [`ConnectorSettings::listing_ttl`]. A schema of that name that is there already is replaced.
    ///
    /// # Errors
    /// [`Error::EmptyRoot`] where nothing under the root could be a table, [`Error::NotFound`] for a missing bucket,
    /// [`Error::AccessDenied`] where it may not be listed.
    pub async fn register(&self, ctx: &SessionContext, schema: &str) -> Result<()> {
        self.tables.discover_anew().await?;
        self.tables.check_not_empty()?;
        let catalog_name = ctx.copied_config().options().catalog.default_catalog.clone();
        let catalog = ctx.catalog(&catalog_name).ok_or_else(|| {
            DataFusionError::Configuration(format!(
                "the session has no default catalog \"{catalog_name}\"; register one, or use register_catalog"
            ))
        })?;
        // A schema of the catalog itself could not tell a query from a walk through all tables.
        match catalog.downcast_ref::<SessionCatalog>() {
            Some(catalog) => catalog.add(schema, &self.tables),
            None => {
                let with_ours = SessionCatalog::new(catalog);
                with_ours.add(schema, &self.tables);
                ctx.register_catalog(catalog_name, Arc::new(with_ours));
            }
        }
        Ok(())
    }

    /// Registers a catalog whose schemas are the root's folders and whose tables are the children of these, so that
    /// `catalog.folder.table` names them in SQL. Objects in the root itself belong to no schema.
    ///
    /// Costs one LIST for the root and one for each folder in it (more past 1,000 children of one), many in flight.
    ///
    /// # Errors
    /// As [`register`](Self::register), for the root; [`Error::InvalidSetting`] without a root. A folder that cannot be
    /// listed is a schema without tables.
    pub async fn register_catalog(&self, ctx: &SessionContext, catalog: &str) -> Result<()> {
        let Some(root) = &self.root else {
            return Err(Error::InvalidSetting {
                setting: "root",
                reason: "a catalog needs a root, whose folders are its schemas; set one, or use register".into(),
            });
        };
        // One provider for all sessions and names, so that a refresh reaches each of them; none before it has listed.
        let known = self.catalog.read().unwrap_or_else(PoisonError::into_inner).clone();
        let provider = known
            .unwrap_or_else(|| Arc::new(S3CatalogProvider::new(root.clone(), Arc::clone(&self.opener), &self.name)));
        provider.refresh().await?;
        let provider = Arc::clone(self.catalog.write().unwrap_or_else(PoisonError::into_inner).get_or_insert(provider));
        ctx.register_catalog(catalog, provider);
        Ok(())
    }

    /// Gives the session the store of the root's bucket as `s3://bucket`, so that `COPY … TO 's3://bucket/…'` writes with
    /// this connector's credentials. A store that is there already is replaced.
    ///
    /// Tables do not need it. It is not confined to the root: whoever writes SQL in the session can then read and write
    /// whatever the credentials permit in the bucket.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] without a root.
    pub fn register_object_store(&self, ctx: &SessionContext) -> Result<()> {
        let Some(root) = &self.root else {
            let reason = "the bucket to write to is the root's; set a root".into();
            return Err(Error::InvalidSetting { setting: "root", reason });
        };
        self.opener.stores.register(root.bucket(), &ctx.runtime_env())
    }

    /// The names of the tables, in order; empty without a root. Lists the root the first time, and again when that is longer
    /// ago than [`ConnectorSettings::listing_ttl`].
    ///
    /// # Errors
    /// Those of a LIST: [`Error::NotFound`], [`Error::AccessDenied`], [`Error::Store`].
    pub async fn table_names(&self) -> Result<Vec<String>> {
        self.tables.discover_anew().await?;
        Ok(self.tables.shown())
    }

    /// Whether [`table`](Self::table) would find this name: a table's name, a child's full name such as
    /// `articles.parquet`, or a full S3 path (which is not looked at). Lists the root as [`table_names`](Self::table_names) does.
    ///
    /// # Errors
    /// As [`table_names`](Self::table_names).
    pub async fn has_table(&self, name: &str) -> Result<bool> {
        self.tables.has_anew(name).await
    }

    /// Opens a table; once, however many ask. Lists the root the first time, then a table that is a folder, and that again
    /// when it is longer ago than [`ConnectorSettings::listing_ttl`].
    ///
    /// # Errors
    /// [`Error::TableNotFound`] and [`Error::AmbiguousName`] for the name, [`Error::NotATable`], [`Error::InvalidFile`]
    /// and [`Error::SchemaConflict`] for what lies there, or those of a request.
    pub async fn table(&self, name: &str) -> Result<Arc<S3Table>> {
        self.tables.open(name).await
    }

    /// Lists again what was listed (the root, and the folders of a registered catalog): new tables appear, deleted ones
    /// go, and every table is opened anew on its next use.
    ///
    /// # Errors
    /// As [`table_names`](Self::table_names); what could not be listed keeps its names from before.
    pub async fn refresh(&self) -> Result<()> {
        let catalog = self.catalog.read().unwrap_or_else(PoisonError::into_inner).clone();
        let tables = self.tables.refresh().await;
        match catalog {
            Some(catalog) => tables.and(catalog.refresh().await),
            None => tables,
        }
    }

    /// The requests that this connector has sent so far, for whatever purpose, with retries.
    pub fn request_counts(&self) -> RequestCounts {
        self.opener.stores.counts()
    }

    /// How often the connector's caches had what was asked of them, and how much they hold.
    pub fn cache_counts(&self) -> CacheCounts {
        CacheCounts {
            footers: self.opener.footers.usage(),
            schemas: self.opener.schemas.usage(),
            objects: self.opener.stores.cached_objects(),
        }
    }

    /// A registry that builds the store of any bucket on first use, with this connector's settings. Give it to the
    /// `RuntimeEnv` of a process that executes plans of this connector without having planned them.
    pub fn object_store_registry(&self) -> Arc<dyn ObjectStoreRegistry> {
        Arc::new(S3StoreRegistry::new(Arc::clone(&self.opener.stores)))
    }
}

/// What the caches of a connector did since it was built. All sessions share them; what they keep is bound to the version
/// of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CacheCounts {
    /// Parquet footers with their page index.
    pub footers: CacheUse,
    /// What files of other formats say of their columns.
    pub schemas: CacheUse,
    /// Small objects, and the starts and ends of others. A hit is a read that needed no request.
    pub objects: CacheUse,
}

/// Builds an [`S3Connector`]. Takes everything, and fails in [`build`](Self::build).
#[derive(Debug, Clone, Default)]
pub struct S3ConnectorBuilder {
    settings: ConnectorSettings,
}

impl S3ConnectorBuilder {
    /// Replaces all settings.
    #[must_use]
    pub fn with_settings(mut self, settings: ConnectorSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Sets [`ConnectorSettings::name`].
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// Sets [`ConnectorSettings::root`], as `s3://bucket/folder`.
    #[must_use]
    pub fn with_root(mut self, root: impl Into<String>) -> Self {
        self.settings.root = Some(root.into());
        self
    }

    /// Sets [`ConnectorSettings::region`].
    #[must_use]
    pub fn with_region(mut self, region: impl Into<String>) -> Self {
        self.settings.region = Some(region.into());
        self
    }

    /// Sets [`ConnectorSettings::endpoint`].
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.settings.endpoint = Some(endpoint.into());
        self
    }

    /// Sets [`ConnectorSettings::access_key_id`] and [`ConnectorSettings::secret_access_key`].
    #[must_use]
    pub fn with_access_key(mut self, id: impl Into<String>, secret: impl Into<Secret>) -> Self {
        self.settings.access_key_id = Some(id.into());
        self.settings.secret_access_key = Some(secret.into());
        self
    }

    /// Sets [`ConnectorSettings::session_token`].
    #[must_use]
    pub fn with_session_token(mut self, token: impl Into<Secret>) -> Self {
        self.settings.session_token = Some(token.into());
        self
    }

    /// Sets [`ConnectorSettings::anonymous`].
    #[must_use]
    pub fn with_anonymous(mut self, anonymous: bool) -> Self {
        self.settings.anonymous = anonymous;
        self
    }

    /// Sets [`ConnectorSettings::allow_http`].
    #[must_use]
    pub fn with_allow_http(mut self, allow_http: bool) -> Self {
        self.settings.allow_http = allow_http;
        self
    }

    /// Sets [`ConnectorSettings::virtual_host`].
    #[must_use]
    pub fn with_virtual_host(mut self, virtual_host: bool) -> Self {
        self.settings.virtual_host = virtual_host;
        self
    }

    /// Sets [`ConnectorSettings::schema_policy`].
    #[must_use]
    pub fn with_schema_policy(mut self, policy: SchemaPolicy) -> Self {
        self.settings.schema_policy = policy;
        self
    }

    /// Sets the settings of one table in [`ConnectorSettings::tables`].
    #[must_use]
    pub fn with_table(mut self, table: impl Into<String>, settings: TableSettings) -> Self {
        self.settings.tables.insert(table.into(), settings);
        self
    }

    /// Sets [`ConnectorSettings::subfolders`].
    #[must_use]
    pub fn with_subfolders(mut self, subfolders: Subfolders) -> Self {
        self.settings.subfolders = subfolders;
        self
    }

    /// Sets [`ConnectorSettings::archived_objects`].
    #[must_use]
    pub fn with_archived_objects(mut self, archived: ArchivedObjects) -> Self {
        self.settings.archived_objects = archived;
        self
    }

    /// Sets [`ConnectorSettings::listing_ttl`].
    #[must_use]
    pub fn with_listing_ttl(mut self, ttl: Duration) -> Self {
        self.settings.listing_ttl = ttl;
        self
    }

    /// Sets [`ConnectorSettings::requests_in_flight`].
    #[must_use]
    pub fn with_requests_in_flight(mut self, requests: usize) -> Self {
        self.settings.requests_in_flight = requests;
        self
    }

    /// Sets [`ConnectorSettings::bytes_in_flight`].
    #[must_use]
    pub fn with_bytes_in_flight(mut self, bytes: u64) -> Self {
        self.settings.bytes_in_flight = bytes;
        self
    }

    /// Sets [`ConnectorSettings::cache_bytes`].
    #[must_use]
    pub fn with_cache_bytes(mut self, bytes: u64) -> Self {
        self.settings.cache_bytes = bytes;
        self
    }

    /// Sets [`ConnectorSettings::environment`].
    #[must_use]
    pub fn with_environment(mut self, environment: bool) -> Self {
        self.settings.environment = environment;
        self
    }

    /// Builds the connector. Reads the environment where the settings allow it; sends nothing.
    ///
    /// # Errors
    /// [`Error::InvalidLocation`] for the root, [`Error::InvalidSetting`] for settings that are malformed or contradict
    /// each other.
    pub fn build(self) -> Result<S3Connector> {
        let root = self.settings.validate()?;
        let opener = Arc::new(Opener {
            stores: Arc::new(Stores::try_new(&self.settings)?),
            footers: Arc::new(FooterCache::new(self.settings.cache_bytes * 7 / 16)?),
            schemas: SchemaCache::new(self.settings.cache_bytes / 16)?,
            root: root.clone(),
            options: TableOptions {
                rules: Rules {
                    subfolders: self.settings.subfolders,
                    archived_objects: self.settings.archived_objects,
                    ..Rules::default()
                },
                schema_policy: self.settings.schema_policy,
                ..TableOptions::default()
            },
            // With or without the `/`, a folder is the same.
            tables: self
                .settings
                .tables
                .into_iter()
                .map(|(key, table)| (key.trim_end_matches('/').to_owned(), table))
                .collect(),
            listing_ttl: self.settings.listing_ttl,
            in_flight: InFlight { requests: self.settings.requests_in_flight, bytes: self.settings.bytes_in_flight },
        });
        let tables = Arc::new(S3SchemaProvider::new(root.clone(), Arc::clone(&opener)));
        Ok(S3Connector { name: self.settings.name, root, opener, tables, catalog: Arc::default() })
    }
}
