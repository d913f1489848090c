//! [`Opener`]: what opening a table needs, and what the settings say of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use datafusion::datasource::table_schema::TableSchema;
use glob::Pattern;
use object_store::path::Path;

use super::S3Table;
use super::head::{self, SchemaCache};
use super::layout::Rules;
use super::schema;
use super::snapshot::{self, Snapshot};
use crate::error::{Error, Result};
use crate::format::{FileType, Format};
use crate::location::S3Location;
use crate::scan::{FIRST_READ, FooterCache, InFlight, STATISTICS_BYTES, ScanTable};
use crate::settings::{CsvSettings, SchemaPolicy, TableSettings};
use crate::store::{ByteCache, End, ListedObject, Stores};

/// What opening a table needs, shared by all tables of a connector.
#[derive(Debug)]
pub(crate) struct Opener {
    pub(crate) stores: Arc<Stores>,
    pub(crate) footers: Arc<FooterCache>,
    pub(crate) schemas: SchemaCache,
    pub(crate) root: Option<S3Location>,
    /// What the settings say of all tables.
    pub(crate) options: TableOptions,
    /// What they say of single ones.
    pub(crate) tables: BTreeMap<String, TableSettings>,
    pub(crate) listing_ttl: Duration,
    pub(crate) in_flight: InFlight,
}

/// What the settings say of a table.
#[derive(Debug, Clone, Default)]
pub(crate) struct TableOptions {
    pub(crate) rules: Rules,
    pub(crate) schema_policy: SchemaPolicy,
    /// The columns, where they are declared.
    pub(crate) schema: Option<SchemaRef>,
    pub(crate) csv: CsvSettings,
}

impl TableOptions {
    /// With what is said of one table.
    fn with(mut self, table: &TableSettings) -> Self {
        self.rules.subfolders = table.subfolders.unwrap_or(self.rules.subfolders);
        self.rules.archived_objects = table.archived_objects.unwrap_or(self.rules.archived_objects);
        self.rules.format = table.format;
        self.rules.template = table.template.as_ref().map(|template| template.split('/').map(str::to_owned).collect());
        // That they are patterns was checked with the settings.
        let patterns = |texts: &[String]| texts.iter().filter_map(|text| Pattern::new(text).ok()).collect();
        self.rules.include = patterns(&table.include);
        self.rules.exclude = patterns(&table.exclude);
        self.schema_policy = table.schema_policy.unwrap_or(self.schema_policy);
        self.schema = table.schema.clone();
        self.csv = table.csv.clone();
        self
    }
}

/// An object below a table's folder, as the rules of the layout see it.
#[derive(Debug)]
pub(crate) struct Surveyed {
    pub(crate) object: ListedObject,
    /// Why it is not read; `None` for a data file.
    pub(crate) ignored: Option<String>,
}

impl Opener {
    /// All objects below a folder, and which of them a table there reads: one LIST for each 1,000.
    ///
    /// # Errors
    /// Those of a LIST. Where the objects do not make up a table, each of them says why.
    pub(crate) async fn survey(&self, folder: &S3Location) -> Result<Vec<Surveyed>> {
        let store = self.stores.bucket(folder.bucket())?;
        snapshot::survey(&store, folder, &self.options(folder).rules).await
    }

    /// Other names of the children of a folder, with what they stand for; without a folder those of full paths.
    pub(crate) fn aliases(&self, folder: Option<&S3Location>) -> BTreeMap<String, String> {
        let mut aliases = BTreeMap::new();
        for (key, table) in self.tables.iter().filter(|(_, table)| !table.aliases.is_empty()) {
            let location = match (S3Location::is_location(key), &self.root) {
                (true, _) => key.parse().ok(),
                (false, Some(root)) => Some(root.join(key)),
                (false, None) => None,
            };
            let stands_for = match (location, folder) {
                (Some(location), Some(folder)) => folder
                    .relative(&location)
                    .filter(|child| !child.trim_end_matches('/').contains('/'))
                    .map(str::to_owned),
                (Some(_), None) => Some(key.clone()),
                (None, _) => None,
            };
            aliases
                .extend(stands_for.iter().flat_map(|to| table.aliases.iter().map(|alias| (alias.clone(), to.clone()))));
        }
        aliases
    }

    /// What the settings say of the table at a location: by its path below the root, the same without the extensions that
    /// tell the format, or its full path.
    fn options(&self, location: &S3Location) -> TableOptions {
        let path = location.key().trim_end_matches('/');
        let below = self.root.as_ref().and_then(|root| root.relative(location)).map(|path| path.trim_end_matches('/'));
        let stem = below.and_then(|path| FileType::from_name(path)).map(|(_, stem)| stem);
        let is_full = |key: &str| {
            S3Location::is_location(key)
                && key.parse().is_ok_and(|named: S3Location| {
                    named.bucket() == location.bucket() && named.key().trim_end_matches('/') == path
                })
        };
        let named = |name: Option<&str>| name.and_then(|name| self.tables.get(name));
        let full = || self.tables.iter().find(|(key, _)| is_full(key)).map(|(_, table)| table);
        let table = named(below).or_else(|| named(stem)).or_else(full);
        table.map_or_else(|| self.options.clone(), |table| self.options.clone().with(table))
    }

    /// What lies at a location that no listing has shown, by reading it: one GET, whose bytes serve the opening. `None`
    /// where there is no such object. Where that is not to be had, by asking a listing.
    pub(crate) async fn find(&self, location: &S3Location) -> Result<Option<ListedObject>> {
        let store = self.stores.bucket(location.bucket())?;
        let (end, length) = match FileType::from_name(location.key()) {
            Some((FileType { format: Format::Parquet, .. }, _)) => (End::End, FIRST_READ),
            Some((FileType { format, .. }, _)) => (End::Start, head::head_length(format, false)),
            None => return store.find_object(location).await,
        };
        if let Ok(path) = Path::parse(location.key())
            && let Ok(found) = store.reads().first(&path, end, length).await
        {
            return Ok(found.map(ListedObject::from));
        }
        store.find_object(location).await
    }

    /// Whether a listing that began then is not older than the time to live.
    pub(crate) fn is_believed(&self, listed_at: Instant) -> bool {
        listed_at.elapsed() < self.listing_ttl
    }

    /// Opens the table of an object, by asking a listing for it.
    pub(crate) async fn open_object(self: &Arc<Self>, name: &str, location: &S3Location) -> Result<S3Table> {
        let now = Instant::now();
        match self.stores.bucket(location.bucket())?.find_object(location).await? {
            Some(object) => self.open(name, location, Some((object, now))).await,
            None => Err(Error::NotATable {
                location: location.to_string(),
                reason: "nothing lies there any more; check what has removed it, or refresh the connector".to_owned(),
            }),
        }
    }

    /// Opens the table at a location: lists it where it is a folder, and infers its schema.
    ///
    /// `object` is what a listing said of a location that is an object, and when that listing began.
    pub(crate) async fn open(
        self: &Arc<Self>,
        name: &str,
        location: &S3Location,
        object: Option<(ListedObject, Instant)>,
    ) -> Result<S3Table> {
        let store = self.stores.bucket(location.bucket())?;
        let options = self.options(location);
        let (mut snapshot, listed_at) = match object {
            Some((object, listed_at)) => (Snapshot::of_object(location, &object, &options.rules)?, listed_at),
            None => {
                let now = Instant::now();
                (Snapshot::of_folder(&store, location, &options).await?, now)
            }
        };
        let inferred = schema::infer(&store, &self.footers, &self.schemas, &options, &mut snapshot).await?;
        let schema = TableSchema::builder(inferred.file_schema)
            .with_table_partition_cols(snapshot.partition_fields.clone())
            .build();
        let scan = ScanTable {
            store,
            footers: Arc::clone(&self.footers),
            schema,
            file_type: inferred.file_type,
            is_complete: inferred.is_complete,
            nulls: options.csv.nulls.clone(),
            in_flight: self.in_flight,
            statistics: ByteCache::new(STATISTICS_BYTES)?,
        };
        Ok(S3Table {
            name: name.to_owned(),
            location: location.clone(),
            snapshot,
            options,
            scan,
            listed_at,
            opener: Arc::clone(self),
            latest: tokio::sync::Mutex::default(),
        })
    }
}
