//! [`TableSettings`]: what a person says about one table.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use glob::Pattern;

use super::{ArchivedObjects, Subfolders};
use crate::error::{Error, Result};
use crate::format::Format;

/// Which files decide the columns of a table, and their types.
///
/// A file that was not looked at then, and does not fit when a query reads it, is an error that names file and column:
/// nothing is cast with a loss. Columns that only such files have are not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SchemaPolicy {
    /// Up to 64 files all of them; above, the first by key and the newest. Of CSV and TSV, whose types are guesses, all.
    #[default]
    Auto,
    /// The first file by key.
    First,
    /// The newest file, and of several the last by key.
    Newest,
    /// So many files, evenly spread over the keys; the first is one of them, and the last where it is two or more.
    Sample(usize),
    /// All files, by name: a column that some lack is NULL there, and types widen.
    All,
    /// All files, which must have the same columns of the same types, in any order.
    Strict,
}

/// Settings of one table. What is not set is as for all tables of the connector.
///
/// ```
/// use std::sync::Arc;
///
/// use arrow::datatypes::{DataType, Field, Schema};
/// use datafusion_s3::{CsvSettings, S3Connector, TableSettings};
///
/// let columns = vec![Field::new("id", DataType::Int64, false), Field::new("name", DataType::Utf8View, true)];
/// let s3 = S3Connector::builder()
///     .with_root("s3://bucket/shop")
///     .with_environment(false)
///     .with_table("prices", TableSettings::default().with_csv(CsvSettings::default().with_delimiter(b';')))
///     .with_table("users", TableSettings::default().with_schema(Arc::new(Schema::new(columns))))
///     .build()?;
/// # Ok::<(), datafusion_s3::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TableSettings {
    /// Which files decide the columns.
    pub schema_policy: Option<SchemaPolicy>,
    /// The columns, so that opening the table reads no file. One with the name of a partition column declares its type.
    /// Columns of the files that are not among them are not read; those that a file lacks are NULL.
    pub schema: Option<SchemaRef>,
    /// The format of its files, whatever their names say.
    pub format: Option<Format>,
    /// How its CSV and TSV files are written.
    pub csv: CsvSettings,
    /// What the folders in it are called, outermost first, where they are not `key=value`: `{year}/{month}` makes two
    /// partition columns of `2024/01/part-0.csv`. A folder without braces is itself. Other folders are an error.
    pub template: Option<String>,
    /// Keys below the table's folder that belong to it, as `2024/**` or `*.csv`; all unless set. `*` and `?` stand for no
    /// `/`, `**` for any number of folders.
    pub include: Vec<String>,
    /// Keys below the table's folder that do not, of those that are included.
    pub exclude: Vec<String>,
    /// Other names for the table. They are shown beside its own.
    pub aliases: Vec<String>,
    /// What a folder in it means when it is not `key=value`.
    pub subfolders: Option<Subfolders>,
    /// What a query does that would read objects in archived storage classes.
    pub archived_objects: Option<ArchivedObjects>,
}

impl TableSettings {
    /// Sets [`schema_policy`](Self::schema_policy).
    #[must_use]
    pub fn with_schema_policy(mut self, policy: SchemaPolicy) -> Self {
        self.schema_policy = Some(policy);
        self
    }

    /// Sets [`schema`](Self::schema).
    #[must_use]
    pub fn with_schema(mut self, schema: SchemaRef) -> Self {
        self.schema = Some(schema);
        self
    }

    /// Sets [`format`](Self::format).
    #[must_use]
    pub fn with_format(mut self, format: Format) -> Self {
        self.format = Some(format);
        self
    }

    /// Sets [`template`](Self::template).
    #[must_use]
    pub fn with_template(mut self, template: impl Into<String>) -> Self {
        self.template = Some(template.into());
        self
    }

    /// Adds a pattern to [`include`](Self::include).
    #[must_use]
    pub fn with_include(mut self, pattern: impl Into<String>) -> Self {
        self.include.push(pattern.into());
        self
    }

    /// Adds a pattern to [`exclude`](Self::exclude).
    #[must_use]
    pub fn with_exclude(mut self, pattern: impl Into<String>) -> Self {
        self.exclude.push(pattern.into());
        self
    }

    /// Adds a name to [`aliases`](Self::aliases).
    #[must_use]
    pub fn with_alias(mut self, alias: impl Into<String>) -> Self {
        self.aliases.push(alias.into());
        self
    }

    /// Sets [`csv`](Self::csv).
    #[must_use]
    pub fn with_csv(mut self, csv: CsvSettings) -> Self {
        self.csv = csv;
        self
    }

    /// Sets [`subfolders`](Self::subfolders).
    #[must_use]
    pub fn with_subfolders(mut self, subfolders: Subfolders) -> Self {
        self.subfolders = Some(subfolders);
        self
    }

    /// Sets [`archived_objects`](Self::archived_objects).
    #[must_use]
    pub fn with_archived_objects(mut self, archived: ArchivedObjects) -> Self {
        self.archived_objects = Some(archived);
        self
    }

    /// Checks the settings of the table that `key` names.
    pub(super) fn validate(&self, key: &str) -> Result<()> {
        let invalid = |setting, reason: &str| {
            Err(Error::InvalidSetting { setting, reason: format!("of table \"{key}\": {reason}") })
        };
        check_policy(self.schema_policy.unwrap_or_default())?;
        if let Some(schema) = &self.schema {
            let mut names = BTreeMap::new();
            for field in schema.fields() {
                if names.insert(field.name(), ()).is_some() {
                    return invalid("schema", &format!("it has two columns \"{}\"; rename one of them", field.name()));
                }
            }
            if names.is_empty() {
                return invalid("schema", "it has no columns; leave it unset to take them from the files");
            }
        }
        for pattern in self.include.iter().chain(&self.exclude) {
            if let Err(error) = Pattern::new(pattern) {
                return invalid(
                    "include",
                    &format!("\"{pattern}\" is no pattern: {error}; write it as 2024/** or *.csv"),
                );
            }
        }
        if let Some(template) = &self.template {
            let columns: Vec<&str> = template.split('/').filter_map(template_column).collect();
            let is_broken = |segment: &str| {
                segment.is_empty() || (template_column(segment).is_none() && segment.contains(['{', '}']))
            };
            if columns.is_empty() || template.split('/').any(is_broken) {
                return invalid("template", &format!("\"{template}\" is none; write it as {{year}}/{{month}}"));
            }
            if (1..columns.len()).any(|index| columns[..index].contains(&columns[index])) {
                return invalid("template", &format!("\"{template}\" has a column twice; rename one of them"));
            }
        }
        if self.aliases.iter().any(|alias| alias.is_empty() || alias.contains("://")) {
            return invalid("aliases", "an alias is a name, not a path; write it as sales");
        }
        let CsvSettings { delimiter, quote, escape, comment, .. } = self.csv;
        let bytes: Vec<u8> = [delimiter, Some(quote.unwrap_or(b'"')), escape, comment].into_iter().flatten().collect();
        if bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
            return invalid("csv", "delimiter, quote, escape and comment cannot be a line end; use another character");
        }
        // An escape that is the quote is the usual doubling of quotes.
        let special = [delimiter, Some(quote.unwrap_or(b'"')), comment];
        let special: Vec<u8> = special.into_iter().flatten().collect();
        if (1..special.len()).any(|index| special[..index].contains(&special[index])) {
            return invalid("csv", "delimiter, quote and comment are the same character; change one of them");
        }
        Ok(())
    }
}

/// The partition column that a segment of a template stands for.
pub(crate) fn template_column(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}').filter(|name| !name.is_empty() && !name.contains(['{', '}']))
}

/// A sample of no files decides nothing.
pub(super) fn check_policy(policy: SchemaPolicy) -> Result<()> {
    if policy == SchemaPolicy::Sample(0) {
        let reason = "a sample of no files tells no columns; set 1 or more".to_owned();
        return Err(Error::InvalidSetting { setting: "schema_policy", reason });
    }
    Ok(())
}

/// How CSV and TSV files are written. They are UTF-8, with or without a byte order mark.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct CsvSettings {
    /// Whether the first record names the columns; it does unless set. Without a header, columns are taken by their
    /// position, and are called `column_1` and so on where no schema is declared.
    pub header: Option<bool>,
    /// Between fields; a comma unless set, and a tab for TSV.
    pub delimiter: Option<u8>,
    /// Around fields that hold a delimiter, a quote or a line end; `"` unless set. Twice, it stands for itself.
    pub quote: Option<u8>,
    /// Before a quote inside of quotes, where quotes are not doubled.
    pub escape: Option<u8>,
    /// At the start of lines that are passed over; none unless set.
    pub comment: Option<u8>,
    /// Texts that stand for NULL, as `NA` or `\N`, quoted or not. The empty field always does.
    pub nulls: Vec<String>,
    /// Whether a record with fewer fields than the header is filled up with NULL, and not an error.
    pub pad_short_rows: bool,
}

impl CsvSettings {
    /// Sets [`header`](Self::header).
    #[must_use]
    pub fn with_header(mut self, header: bool) -> Self {
        self.header = Some(header);
        self
    }

    /// Sets [`delimiter`](Self::delimiter).
    #[must_use]
    pub fn with_delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = Some(delimiter);
        self
    }

    /// Sets [`quote`](Self::quote).
    #[must_use]
    pub fn with_quote(mut self, quote: u8) -> Self {
        self.quote = Some(quote);
        self
    }

    /// Sets [`escape`](Self::escape).
    #[must_use]
    pub fn with_escape(mut self, escape: u8) -> Self {
        self.escape = Some(escape);
        self
    }

    /// Sets [`comment`](Self::comment).
    #[must_use]
    pub fn with_comment(mut self, comment: u8) -> Self {
        self.comment = Some(comment);
        self
    }

    /// Adds a text to [`nulls`](Self::nulls).
    #[must_use]
    pub fn with_null(mut self, text: impl Into<String>) -> Self {
        self.nulls.push(text.into());
        self
    }

    /// Sets [`pad_short_rows`](Self::pad_short_rows).
    #[must_use]
    pub fn with_pad_short_rows(mut self, pad: bool) -> Self {
        self.pad_short_rows = pad;
        self
    }
}
