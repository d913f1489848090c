//! [`ConnectorSettings`]: what a person says about a connector. Plain values; nothing here does I/O.

mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

pub(crate) use self::table::template_column;
pub use self::table::{CsvSettings, SchemaPolicy, TableSettings};
use crate::error::{Error, Result};
use crate::location::{S3Location, is_readable, redact};

/// The settings of one connector, as a person wrote them.
///
/// What is not set is taken from the `AWS_*` environment where [`environment`](Self::environment) allows it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectorSettings {
    /// The connector's name; `s3` unless set.
    pub name: String,
    /// The folder whose children are the tables. Without one, tables are named by their full S3 paths.
    pub root: Option<String>,
    /// The bucket's region; `AWS_REGION`, `AWS_DEFAULT_REGION`, then `us-east-1` unless set.
    pub region: Option<String>,
    /// The URL of a store other than AWS, as `https://minio.example.com`.
    pub endpoint: Option<String>,
    /// The id of a static access key. Set both halves or neither.
    pub access_key_id: Option<String>,
    /// The secret of a static access key.
    pub secret_access_key: Option<Secret>,
    /// The session token of temporary credentials.
    pub session_token: Option<Secret>,
    /// Send unsigned requests, as public buckets allow; no credentials are looked for.
    pub anonymous: bool,
    /// Permit an endpoint with plain `http://`.
    pub allow_http: bool,
    /// Name the bucket in the host (`bucket.endpoint`) and not in the path.
    pub virtual_host: bool,
    /// Which files decide the columns of a table.
    pub schema_policy: SchemaPolicy,
    /// What a folder inside a table's folder means when it is not `key=value`.
    pub subfolders: Subfolders,
    /// What a query does that would read objects in archived storage classes.
    pub archived_objects: ArchivedObjects,
    /// Settings of single tables: by the path below the root (with or without the extensions that tell the format), as
    /// `articles` or `2024/articles.parquet`, or by the full path.
    pub tables: BTreeMap<String, TableSettings>,
    /// How long a listing is believed; 60 s unless set. A table whose listing is older is listed again by the next query
    /// that names it, and zero lists for every query. What a listing shows to be unchanged is not read again.
    pub listing_ttl: Duration,
    /// How many requests to one bucket may be in flight at a time, whatever the number of cores; 64 unless set.
    pub requests_in_flight: usize,
    /// Bytes that a scan tries to keep in flight; 128 MiB unless set. It decides how many files and row groups are read
    /// at the same time beyond one for each partition that DataFusion wants.
    pub bytes_in_flight: u64,
    /// Bytes of memory that the connector's caches may take (footers, small objects, heads and tails of files); 256 MiB
    /// unless set, and zero keeps nothing.
    pub cache_bytes: u64,
    /// Whether the `AWS_*` environment fills in what is not set here.
    pub environment: bool,
}

impl Default for ConnectorSettings {
    fn default() -> Self {
        Self {
            name: "s3".to_owned(),
            root: None,
            region: None,
            endpoint: None,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            anonymous: false,
            allow_http: false,
            virtual_host: false,
            schema_policy: SchemaPolicy::default(),
            subfolders: Subfolders::default(),
            archived_objects: ArchivedObjects::default(),
            tables: BTreeMap::new(),
            listing_ttl: Duration::from_secs(60),
            requests_in_flight: 64,
            bytes_in_flight: 128 * 1024 * 1024,
            cache_bytes: 256 * 1024 * 1024,
            environment: true,
        }
    }
}

impl fmt::Debug for ConnectorSettings {
    /// Prints no secret, also where one was written into a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectorSettings")
            .field("name", &self.name)
            .field("root", &self.root.as_deref().map(redact))
            .field("region", &self.region)
            .field("endpoint", &self.endpoint.as_deref().map(redact))
            .field("access_key_id", &self.access_key_id)
            .field("secret_access_key", &self.secret_access_key)
            .field("session_token", &self.session_token)
            .field("anonymous", &self.anonymous)
            .field("allow_http", &self.allow_http)
            .field("virtual_host", &self.virtual_host)
            .field("schema_policy", &self.schema_policy)
            .field("subfolders", &self.subfolders)
            .field("archived_objects", &self.archived_objects)
            .field("tables", &self.tables)
            .field("listing_ttl", &self.listing_ttl)
            .field("requests_in_flight", &self.requests_in_flight)
            .field("bytes_in_flight", &self.bytes_in_flight)
            .field("cache_bytes", &self.cache_bytes)
            .field("environment", &self.environment)
            .finish()
    }
}

/// What a folder inside a table's folder means when it is not `key=value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Subfolders {
    /// Data files in it are an error that names them: rows are neither added nor lost by a guess.
    #[default]
    Reject,
    /// Data files in it belong to the table.
    Recurse,
}

/// What a query does that would read objects of the storage classes GLACIER and DEEP_ARCHIVE, which S3 gives only after
/// they were restored. A listing shows the class, but not whether there is a restored copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ArchivedObjects {
    /// It fails before anything is read, naming one of them. Objects in partitions that it does not want do not count.
    #[default]
    Reject,
    /// They are no part of their table.
    Skip,
    /// It reads them, as is right where they have been restored.
    Read,
}

impl ConnectorSettings {
    /// Checks the settings against each other, and parses the root as a folder.
    ///
    /// # Errors
    /// [`Error::InvalidLocation`] for the root, [`Error::InvalidSetting`] for anything else, naming the setting.
    pub(crate) fn validate(&self) -> Result<Option<S3Location>> {
        let invalid = |setting, reason: &str| Err(Error::InvalidSetting { setting, reason: reason.into() });
        if self.name.is_empty() {
            return invalid("name", "it is empty; leave it unset for \"s3\"");
        }
        if self.access_key_id.is_some() != self.secret_access_key.is_some() {
            return invalid("access_key_id", "an access key has an id and a secret; set both or neither");
        }
        if self.session_token.is_some() && self.access_key_id.is_none() {
            return invalid(
                "session_token",
                "a session token goes with an access key; set access_key_id and secret_access_key",
            );
        }
        if self.anonymous && self.access_key_id.is_some() {
            return invalid("anonymous", "unsigned requests and an access key exclude each other; drop one of them");
        }
        if self.requests_in_flight == 0 {
            return invalid("requests_in_flight", "nothing could be read with none; set 1 or more");
        }
        table::check_policy(self.schema_policy)?;
        let mut aliases = BTreeMap::new();
        for (key, table) in &self.tables {
            for alias in &table.aliases {
                if let Some(other) = aliases.insert(alias, key) {
                    let reason = format!("\"{alias}\" stands for \"{other}\" and \"{key}\"; rename one of them");
                    return invalid("aliases", &reason);
                }
            }
            table.validate(key)?;
            if S3Location::is_location(key) {
                key.parse::<S3Location>()?;
            }
        }
        if let Some(endpoint) = &self.endpoint {
            // The environment may allow plain HTTP, too: that is checked where it is read.
            check_endpoint(endpoint, true)?;
        }
        let root =
            self.root.as_deref().map(|root| root.parse::<S3Location>().map(|root| root.to_folder())).transpose()?;
        let key = root.as_ref().map_or("", S3Location::key);
        if !key.is_empty() && !is_readable(key.strip_suffix('/').unwrap_or(key)) {
            let reason = "what lies in a folder with an empty segment, . or .., or a control character cannot be read; write the root without it".into();
            return Err(Error::InvalidLocation { location: redact(self.root.as_deref().unwrap_or_default()), reason });
        }
        Ok(root)
    }
}

/// An endpoint must be an HTTP URL without user or password, and plain HTTP must be allowed.
pub(crate) fn check_endpoint(endpoint: &str, allow_http: bool) -> Result<()> {
    let invalid = |reason: String| Err(Error::InvalidSetting { setting: "endpoint", reason });
    let url = match url::Url::parse(endpoint) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => url,
        _ => return invalid("it is not a URL such as https://minio.example.com:9000".into()),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return invalid("it holds a user or password; set access_key_id and secret_access_key".into());
    }
    if url.scheme() == "http" && !allow_http {
        return invalid(format!("{endpoint} is plain HTTP; use https, or set allow_http (AWS_ALLOW_HTTP=true)"));
    }
    Ok(())
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the store only.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl<S: Into<String>> From<S> for Secret {
    fn from(secret: S) -> Self {
        Self(secret.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_name_their_setting() {
        let base = ConnectorSettings::default;
        for (settings, part) in [
            (ConnectorSettings { name: String::new(), ..base() }, "name"),
            (ConnectorSettings { access_key_id: Some("a".into()), ..base() }, "access_key_id"),
            (ConnectorSettings { session_token: Some("t".into()), ..base() }, "session_token"),
            (
                ConnectorSettings {
                    anonymous: true,
                    access_key_id: Some("a".into()),
                    secret_access_key: Some("s".into()),
                    ..base()
                },
                "anonymous",
            ),
            (ConnectorSettings { requests_in_flight: 0, ..base() }, "requests_in_flight"),
            (ConnectorSettings { endpoint: Some("minio:9000".into()), ..base() }, "endpoint"),
            (ConnectorSettings { endpoint: Some("https://a:b@minio".into()), ..base() }, "user or password"),
            (ConnectorSettings { root: Some("lake/shop".into()), ..base() }, "lake/shop"),
            (ConnectorSettings { root: Some("s3://lake/a/../b".into()), ..base() }, "a/../b"),
            (ConnectorSettings { root: Some("s3://lake/a//b".into()), ..base() }, "a//b"),
        ] {
            let error = settings.validate().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_root_is_a_folder() {
        let settings = ConnectorSettings { root: Some("s3://lake/shop".into()), ..ConnectorSettings::default() };
        assert_eq!(settings.validate().unwrap().unwrap().to_string(), "s3://lake/shop/");
    }

    #[test]
    fn a_secret_is_never_printed() {
        let settings = ConnectorSettings {
            root: Some("s3://id:geheim@lake/shop".into()),
            endpoint: Some("https://id:ge/geheim@minio.example.com".into()),
            secret_access_key: Some("geheim".into()),
            session_token: Some("geheim".into()),
            ..ConnectorSettings::default()
        };
        assert!(!format!("{settings:?}").contains("geheim"));
    }
}
