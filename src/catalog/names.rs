//! From the children of a folder to SQL names. Pure.
//!
//! A child's full name is its key relative to the folder: `articles.parquet`, or `transactions/` for a folder. Its table
//! name is the full name without the extensions that tell its format, or without the `/`.
//!
//! - Hidden children, markers, checksums, empty objects, objects of no known extension and `key=value` folders have no
//!   table name: they are not shown, but can be asked for by full name.
//! - Where two children have one table name, neither has it: both are shown by their full names, and asking for the
//!   table name is an error that lists them.
//! - A name is looked up among table names, then among full names; each first exactly, then without regard to case,
//!   where just one matches.

use std::collections::BTreeMap;
use std::fmt;

use object_store::ObjectMeta;

use crate::format::FileType;
use crate::store::FolderListing;
use crate::table::layout::{self, Ignored};

/// The children of a folder, by name.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Full names by the names that are shown.
    tables: BTreeMap<String, String>,
    /// All children by full name: objects with what the listing said of them, folders with `None`.
    children: BTreeMap<String, Option<ObjectMeta>>,
    /// Full names by a table name that several children have.
    conflicts: BTreeMap<String, Vec<String>>,
    /// Why a child has no table name, by full name.
    ignored: BTreeMap<String, NotShown>,
}

/// What a lookup found.
#[derive(Debug, PartialEq)]
pub(crate) enum Lookup<'a> {
    /// The name as it is shown (or the full name of what is not), and the child's full name.
    Found {
        name: &'a str,
        full_name: &'a str,
    },
    /// Several children answer to the name.
    Ambiguous(Vec<String>),
    Missing,
}

/// Why a child has no table name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotShown {
    Object(Ignored),
    HiddenFolder,
    PartitionFolder,
}

impl fmt::Display for NotShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(ignored) => ignored.fmt(f),
            Self::HiddenFolder => f.write_str("hidden, since its name starts with _ or ."),
            Self::PartitionFolder => f.write_str("a partition of the folder that holds it"),
        }
    }
}

impl Names {
    /// Names the children of the folder whose key is `folder`.
    pub(crate) fn new(folder: &str, listing: FolderListing) -> Self {
        let mut names = Self::default();
        let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for child in listing.folders {
            let full_name = format!("{child}/");
            if layout::is_hidden(&child) {
                names.ignored.insert(full_name.clone(), NotShown::HiddenFolder);
            } else if child.contains('=') {
                names.ignored.insert(full_name.clone(), NotShown::PartitionFolder);
            } else {
                by_name.entry(child).or_default().push(full_name.clone());
            }
            names.children.insert(full_name, None);
        }
        for object in listing.objects {
            // `object_store` drops the `/` at the end of the folder's own marker, which thus is no child.
            let Some(full_name) = object.location.as_ref().strip_prefix(folder).filter(|name| !name.is_empty()) else {
                continue;
            };
            let full_name = full_name.to_owned();
            match (layout::ignored(&full_name, object.size), FileType::from_name(&full_name)) {
                (None, Some((_, stem))) => by_name.entry(stem.to_owned()).or_default().push(full_name.clone()),
                (reason, _) => {
                    let reason = NotShown::Object(reason.unwrap_or(Ignored::UnknownExtension));
                    names.ignored.insert(full_name.clone(), reason);
                }
            }
            names.children.insert(full_name, Some(object));
        }
        for (name, full_names) in by_name {
            match <[String; 1]>::try_from(full_names) {
                Ok([full_name]) => {
                    names.tables.insert(name, full_name);
                }
                Err(full_names) => {
                    names.tables.extend(full_names.iter().map(|full_name| (full_name.clone(), full_name.clone())));
                    names.conflicts.insert(name, full_names);
                }
            }
        }
        names
    }

    /// The names that are shown, in order.
    pub(crate) fn shown(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(String::as_str)
    }

    /// What the listing said of a child; `None` for a folder.
    pub(crate) fn object(&self, full_name: &str) -> Option<&ObjectMeta> {
        self.children.get(full_name)?.as_ref()
    }

    /// Finds the child that a name stands for.
    pub(crate) fn find(&self, name: &str) -> Lookup<'_> {
        if let Some((name, full_name)) = self.tables.get_key_value(name) {
            return Lookup::Found { name, full_name };
        }
        if let Some(full_names) = self.conflicts.get(name) {
            return Lookup::Ambiguous(full_names.clone());
        }
        if let Some((full_name, _)) = self.children.get_key_value(name) {
            return Lookup::Found { name: full_name, full_name };
        }
        let folded = name.to_lowercase();
        let is_alike = |known: &str| known.to_lowercase() == folded;
        let tables = self.tables.iter().map(|(name, full_name)| (name.as_str(), full_name.as_str()));
        let mut alike: Vec<(&str, &str)> = tables.filter(|(name, _)| is_alike(name)).collect();
        for full_names in self.conflicts.iter().filter(|(name, _)| is_alike(name)).map(|(_, full_names)| full_names) {
            alike.extend(full_names.iter().map(|full_name| (full_name.as_str(), full_name.as_str())));
        }
        if alike.is_empty() {
            let full_names = self.children.keys().map(String::as_str).filter(|full_name| is_alike(full_name));
            alike.extend(full_names.map(|full_name| (full_name, full_name)));
        }
        match alike[..] {
            [] => Lookup::Missing,
            [(name, full_name)] => Lookup::Found { name, full_name },
            _ => Lookup::Ambiguous(alike.into_iter().map(|(name, _)| name.to_owned()).collect()),
        }
    }

    /// A child that would have this table name if it were shown: its full name, and why it is not.
    pub(crate) fn not_shown(&self, name: &str) -> Option<(&str, NotShown)> {
        let is_meant = |full_name: &str| {
            let visible = full_name.trim_start_matches(['_', '.']);
            [full_name, visible].iter().any(|known| {
                known.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '/', '=']))
            })
        };
        let mut ignored = self.ignored.iter().map(|(full_name, reason)| (full_name.as_str(), *reason));
        ignored.find(|(full_name, _)| is_meant(full_name))
    }

    /// The first child without a table name and the reason; and how many there are.
    pub(crate) fn first_not_shown(&self) -> Option<(&str, NotShown, usize)> {
        self.ignored.iter().next().map(|(full_name, reason)| (full_name.as_str(), *reason, self.ignored.len()))
    }

    /// What shows that the folder is itself a table: a `key=value` folder, or a lake format's.
    pub(crate) fn table_mark(&self) -> Option<&str> {
        let is_lake = |full_name: &str| matches!(full_name, "_delta_log/" | ".hoodie/" | "_versions/");
        self.ignored
            .iter()
            .find(|(full_name, reason)| **reason == NotShown::PartitionFolder || is_lake(full_name))
            .map(|(full_name, _)| full_name.as_str())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.children.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use object_store::path::Path;

    use super::*;

    fn names(folders: &[&str], objects: &[(&str, u64)]) -> Names {
        let listing = FolderListing {
            folders: folders.iter().map(|folder| (*folder).to_owned()).collect(),
            objects: objects
                .iter()
                .map(|(name, size)| ObjectMeta {
                    location: Path::parse(format!("shop/{name}")).unwrap(),
                    last_modified: std::time::SystemTime::UNIX_EPOCH.into(),
                    size: *size,
                    e_tag: None,
                    version: None,
                })
                .collect(),
        };
        Names::new("shop/", listing)
    }

    #[test]
    fn what_is_shown() {
        let names = names(
            &["transactions", "_temporary", ".hidden", "year=2024", "Archive"],
            &[
                ("articles.parquet", 9),
                ("users.json.gz", 9),
                ("_SUCCESS", 0),
                (".articles.parquet.crc", 9),
                ("_draft.csv", 9),
                ("empty.csv", 0),
                ("README.md", 9),
                ("transactions_$folder$", 0),
                ("v1.2.csv", 9),
            ],
        );
        assert_eq!(names.shown().collect::<Vec<_>>(), ["Archive", "articles", "transactions", "users", "v1.2"]);
        for (name, reason) in
            [("empty", "empty.csv"), ("README", "README.md"), ("draft", "_draft.csv"), ("year", "year=2024/")]
        {
            assert_eq!(names.not_shown(name).map(|(full_name, _)| full_name), Some(reason), "{name}");
        }
        assert_eq!(names.not_shown("nothing"), None);
        assert_eq!(names.table_mark(), Some("year=2024/"));
    }

    #[test]
    fn lookups() {
        let names = names(
            &["articles", "Sales"],
            &[
                ("articles.parquet", 9),
                ("articles.csv", 9),
                ("Orders.csv", 9),
                ("items.csv", 9),
                ("Items.csv", 9),
                ("ITEMS.json", 9),
                ("_x.csv", 9),
            ],
        );
        let shown = ["ITEMS", "Items", "Orders", "Sales", "articles.csv", "articles.parquet", "articles/", "items"];
        assert_eq!(names.shown().collect::<Vec<_>>(), shown);
        let found = |name, full_name| Lookup::Found { name, full_name };
        let ambiguous = |names: &[&str]| Lookup::Ambiguous(names.iter().map(|name| (*name).to_owned()).collect());
        for (name, expected) in [
            ("items", found("items", "items.csv")),
            ("Items", found("Items", "Items.csv")),
            ("iTEMS", ambiguous(&["ITEMS", "Items", "items"])),
            ("orders", found("Orders", "Orders.csv")),
            ("ORDERS.CSV", found("Orders.csv", "Orders.csv")),
            ("sales", found("Sales", "Sales/")),
            ("Sales/", found("Sales/", "Sales/")),
            ("articles", ambiguous(&["articles/", "articles.parquet", "articles.csv"])),
            ("ARTICLES", ambiguous(&["articles/", "articles.parquet", "articles.csv"])),
            ("articles.csv", found("articles.csv", "articles.csv")),
            ("articles/", found("articles/", "articles/")),
            ("_x.csv", found("_x.csv", "_x.csv")),
            ("x", Lookup::Missing),
        ] {
            assert_eq!(names.find(name), expected, "{name}");
        }
    }
}
