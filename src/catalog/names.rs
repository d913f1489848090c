//! From the children of a folder to SQL names. Pure.
//!
//! A child's full name is its key relative to the folder: `articles.parquet`, or `transactions/` for a folder. Its table
//! name is the full name without the extensions that tell its format, or without the `/`.
//!
//! - Hidden children, markers, checksums, empty objects, objects of no known extension and `key=value` folders have no
//!   table name: they are not shown, but can be asked for by full name. What has a key that cannot be read has no name.
//! - Where two children have one table name, neither has it: both are shown by their full names, and asking for the
//!   table name is an error that lists them. Where a table name is another child's full name, it stands for that child.
//! - In a folder that a lake format has marked, no child has a table name.
//! - A name is looked up among table names, then among full names; each first exactly, then without regard to case,
//!   where just one matches.

use std::collections::BTreeMap;
use std::fmt;

use crate::format::FileType;
use crate::location::is_readable;
use crate::store::{FolderListing, ListedObject};
use crate::table::layout::{self, Ignored};

/// The children of a folder, by name.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Full names by the names that are shown.
    tables: BTreeMap<String, String>,
    /// All children by full name: objects with what the listing said of them, folders with `None`.
    children: BTreeMap<String, Option<ListedObject>>,
    /// Full names by a table name that several children have.
    conflicts: BTreeMap<String, Vec<String>>,
    /// Why a child has no table name, by full name.
    ignored: BTreeMap<String, NotShown>,
    /// The lake format that has marked the folder, whose children then are no tables.
    lake: Option<&'static str>,
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
    /// The keys in the folder cannot be read.
    UnreadableFolder,
    /// The folder that holds it is a table of this lake format.
    Lake(&'static str),
}

impl fmt::Display for NotShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(ignored) => ignored.fmt(f),
            Self::HiddenFolder => f.write_str("hidden, since its name starts with _ or ."),
            Self::UnreadableFolder => Ignored::UnreadableKey.fmt(f),
            Self::PartitionFolder => f.write_str("a partition of the folder that holds it"),
            Self::Lake(format) => write!(f, "a part of the {format} table that holds it"),
        }
    }
}

impl Names {
    /// Names the children of the folder whose key is `folder`.
    pub(crate) fn new(folder: &str, listing: FolderListing) -> Self {
        let lake = listing.folders.iter().find_map(|folder| layout::lake_format_of_child(folder));
        let mut names = Self { lake, ..Self::default() };
        let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for child in listing.folders {
            let full_name = format!("{child}/");
            if let Some(format) = names.lake {
                names.ignored.insert(full_name.clone(), NotShown::Lake(format));
            } else if !is_readable(&child) {
                names.ignored.insert(full_name, NotShown::UnreadableFolder);
                continue;
            } else if layout::is_hidden(&child) {
                names.ignored.insert(full_name.clone(), NotShown::HiddenFolder);
            } else if child.contains('=') {
                names.ignored.insert(full_name.clone(), NotShown::PartitionFolder);
            } else {
                by_name.entry(child).or_default().push(full_name.clone());
            }
            names.children.insert(full_name, None);
        }
        for object in listing.objects {
            // The folder's own marker is no child.
            let Some(full_name) = object.key.strip_prefix(folder).filter(|name| !name.is_empty()) else { continue };
            let full_name = full_name.to_owned();
            if let Some(format) = names.lake {
                names.ignored.insert(full_name.clone(), NotShown::Lake(format));
                names.children.insert(full_name, Some(object));
                continue;
            }
            match (layout::ignored(&full_name, object.size), FileType::from_name(&full_name)) {
                (None, Some((_, stem))) => by_name.entry(stem.to_owned()).or_default().push(full_name.clone()),
                (reason, _) => {
                    let reason = reason.unwrap_or(Ignored::UnknownExtension);
                    names.ignored.insert(full_name.clone(), NotShown::Object(reason));
                    if reason == Ignored::UnreadableKey {
                        continue;
                    }
                }
            }
            names.children.insert(full_name, Some(object));
        }
        for (name, mut full_names) in by_name {
            let is_taken = full_names.iter().all(|full_name| *full_name != name) && names.children.contains_key(&name);
            if full_names.len() == 1 && !is_taken {
                names.tables.extend(full_names.pop().map(|full_name| (name, full_name)));
                continue;
            }
            names.tables.extend(full_names.iter().map(|full_name| (full_name.clone(), full_name.clone())));
            if !is_taken {
                names.conflicts.insert(name, full_names);
            }
        }
        names
    }

    /// The names that are shown, in order.
    pub(crate) fn shown(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(String::as_str)
    }

    /// What the listing said of a child; `None` for a folder.
    pub(crate) fn object(&self, full_name: &str) -> Option<&ListedObject> {
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

    /// The children without a table name, and why they have none.
    pub(crate) fn ignored(&self) -> impl Iterator<Item = (&str, NotShown)> {
        self.ignored.iter().map(|(full_name, reason)| (full_name.as_str(), *reason))
    }

    /// The first child without a table name and the reason; and how many there are.
    pub(crate) fn first_not_shown(&self) -> Option<(&str, NotShown, usize)> {
        self.ignored.iter().next().map(|(full_name, reason)| (full_name.as_str(), *reason, self.ignored.len()))
    }

    /// What shows that the folder is itself a table: a lake format's mark, or a `key=value` folder.
    pub(crate) fn table_mark(&self) -> Option<String> {
        if let Some(format) = self.lake {
            return Some(format!("a table of {format}"));
        }
        let mut partitions = self.ignored.iter().filter(|(_, reason)| **reason == NotShown::PartitionFolder);
        partitions.next().map(|(full_name, _)| format!("a table, as \"{full_name}\" shows"))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.children.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folders: &[&str], objects: &[(&str, u64)]) -> Names {
        let listing = FolderListing {
            folders: folders.iter().map(|folder| (*folder).to_owned()).collect(),
            objects: objects
                .iter()
                .map(|(name, size)| ListedObject {
                    key: format!("shop/{name}"),
                    size: *size,
                    last_modified: std::time::SystemTime::UNIX_EPOCH.into(),
                    e_tag: None,
                    storage_class: None,
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
        assert_eq!(names.table_mark().as_deref(), Some("a table, as \"year=2024/\" shows"));
    }

    #[test]
    fn a_table_of_a_lake_format_has_no_tables() {
        for folders in [&["_delta_log"][..], &[".hoodie", "year=2024"], &["_versions", "data"]] {
            let names = names(folders, &[("part-0.parquet", 9)]);
            assert_eq!(names.shown().count(), 0, "{folders:?}");
            assert!(names.table_mark().is_some_and(|mark| mark.starts_with("a table of ")), "{folders:?}");
        }
        // Any folder may have such children.
        let shown = ["base_1", "data", "delta_1_1", "metadata"];
        assert_eq!(names(&shown, &[]).shown().collect::<Vec<_>>(), shown);
    }

    #[test]
    fn a_full_name_is_never_another_childs_table_name() {
        let names = names(&["a.csv", "b"], &[("a.csv", 9), ("a.parquet", 9), ("b.csv.csv", 9), ("b.csv", 9)]);
        let shown = ["a.csv", "a.csv/", "a.parquet", "b.csv", "b.csv.csv", "b/"];
        assert_eq!(names.shown().collect::<Vec<_>>(), shown);
        for name in shown {
            assert_eq!(names.find(name), Lookup::Found { name, full_name: name });
        }
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
