//! From listed keys to a table's layout: which objects are data, of which type, with which partition values. Pure.
//!
//! The rules, in this order, for the objects below a table's folder:
//!
//! 1. A folder that a lake format has marked (`_delta_log/`, `.hoodie/`, Iceberg's `metadata/`, Lance's `_versions/`,
//!    Hive's `base_N/` and `delta_N_N/`) is refused: its files are not all live rows.
//! 2. Hidden is what has a segment starting with `.`, or with `_` and no `=`; so are `_SUCCESS`, `_temporary/`,
//!    `_metadata`. Hidden objects are ignored.
//! 3. Markers of folders (`x/`, `x_$folder$`), checksums (`x.crc`) and objects of zero bytes are ignored.
//! 4. So are objects whose keys have an empty segment (`a//b`), `.` or `..`, or a control character: they cannot be read.
//!    So are keys that the settings leave out by patterns.
//!    Objects in an archived storage class are ignored where [`ArchivedObjects::Skip`] says so.
//! 5. Objects whose name ends in no known extension are ignored beside data files that have one. Where no object has
//!    one, all of them are data, and the first bytes tell the format.
//! 6. What remains is data. All of it has one format and compression, and the same partition columns in the same order
//!    (the `key=value` segments of its folder); anything else is an error that names two files.
//!    Where a template names the folders, it tells the columns, and a file elsewhere is an error.
//! 7. Any other folder between the table and a data file is an error that names it, unless subfolders belong to the
//!    table by [`Subfolders::Recurse`].

use std::collections::BTreeSet;
use std::fmt;

use glob::{MatchOptions, Pattern};

use super::partition;
use crate::error::quoted;
use crate::format::{FileType, Format};
use crate::location::is_readable;
use crate::settings::{ArchivedObjects, Subfolders, template_column};

/// A listed object: its key relative to the table's folder, its size in bytes, and whether it lies in an archive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listed<'a> {
    pub(crate) key: &'a str,
    pub(crate) size: u64,
    pub(crate) is_archived: bool,
}

/// What the settings say of layouts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    pub(crate) subfolders: Subfolders,
    pub(crate) archived_objects: ArchivedObjects,
    /// The format of all data files, where it is declared.
    pub(crate) format: Option<Format>,
    /// The segments of a template for folders.
    pub(crate) template: Option<Vec<String>>,
    /// Patterns of keys that belong to the table; none for all.
    pub(crate) include: Vec<Pattern>,
    pub(crate) exclude: Vec<Pattern>,
}

impl Rules {
    /// Whether the settings leave a key out.
    fn excludes(&self, key: &str) -> bool {
        const OPTIONS: MatchOptions =
            MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };
        let matches = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches_with(key, OPTIONS));
        (!self.include.is_empty() && !matches(&self.include)) || matches(&self.exclude)
    }

    /// The type of a file by the settings or its name.
    pub(super) fn file_type(&self, key: &str) -> Option<FileType> {
        let name = key.rsplit('/').next().unwrap_or(key);
        match self.format {
            Some(format) => Some(FileType::declared(format, name)),
            None => FileType::from_name(name).map(|(file_type, _)| file_type),
        }
    }

    /// The partition columns and values of a file; `None` where its folder does not fit the template.
    fn partitions(&self, key: &str) -> Option<(Vec<String>, Vec<Option<String>>)> {
        match &self.template {
            None => Some(partition::parse_folder(folder(key))),
            Some(template) => {
                let segments: Vec<&str> = key.split('/').collect();
                // The last segment is the file's name.
                if segments.len() != template.len() + 1 {
                    return None;
                }
                let pairs = template.iter().zip(segments);
                let fits = pairs.clone().all(|(wanted, found)| template_column(wanted).is_some() || wanted == found);
                let columns = pairs.filter_map(|(wanted, found)| {
                    Some((template_column(wanted)?.to_owned(), partition::parse_value(found)))
                });
                fits.then(|| columns.unzip())
            }
        }
    }
}

/// How the objects of a folder make up a table.
#[derive(Debug, PartialEq)]
pub(crate) struct Layout {
    /// The type of all data files; `None` where only their first bytes can tell.
    pub(crate) file_type: Option<FileType>,
    /// Names of the partition columns, outermost first, decoded.
    pub(crate) partition_columns: Vec<String>,
    pub(crate) files: Vec<DataFile>,
}

/// One data file of a layout.
#[derive(Debug, PartialEq)]
pub(crate) struct DataFile {
    /// Its place among the listed objects.
    pub(crate) index: usize,
    /// Its partition values, decoded; `None` is NULL.
    pub(crate) partition_values: Vec<Option<String>>,
}

/// Why the objects of a folder do not make up a table.
#[derive(Debug, PartialEq)]
pub(crate) enum LayoutError {
    Empty,
    OnlyIgnored { count: usize, example: String, reason: Ignored },
    Lake { format: &'static str, marker: String },
    Namespace { folders: Vec<String> },
    Subfolder { key: String },
    MixedTypes { first: (String, FileType), second: (String, FileType) },
    Template { key: String, template: String },
    RepeatedPartition { key: String, column: String },
    MixedPartitions { first: (String, Vec<String>), second: (String, Vec<String>) },
}

/// Why an object is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ignored {
    Hidden,
    Marker,
    Empty,
    Excluded,
    Archived,
    UnreadableKey,
    UnknownExtension,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hidden => "hidden, since a part of its name starts with _ or .",
            Self::Marker => "a marker or checksum, not data",
            Self::Empty => "empty, 0 bytes",
            Self::Excluded => "left out by include or exclude of the settings",
            Self::Archived => "in an archived storage class, which the settings skip",
            Self::UnreadableKey => {
                "its key has an empty segment, . or .., or a control character, which cannot be read"
            }
            Self::UnknownExtension => "its name ends in no known extension",
        })
    }
}

impl Listed<'_> {
    /// Why it is not data, whatever lies beside it.
    pub(super) fn ignored(&self, rules: &Rules) -> Option<Ignored> {
        let is_skipped = self.is_archived && rules.archived_objects == ArchivedObjects::Skip;
        match ignored(self.key, self.size) {
            None | Some(Ignored::UnknownExtension) if rules.excludes(self.key) => Some(Ignored::Excluded),
            None | Some(Ignored::UnknownExtension) if is_skipped => Some(Ignored::Archived),
            // What is declared tells the format.
            Some(Ignored::UnknownExtension) if rules.format.is_some() => None,
            reason => reason,
        }
    }
}

/// Why an object with this name and size is not data, whatever lies beside it (rules 2 to 5).
pub(crate) fn ignored(key: &str, size: u64) -> Option<Ignored> {
    let name = key.rsplit('/').next().unwrap_or(key);
    if name.is_empty() || name.ends_with("_$folder$") || name.ends_with(".crc") {
        return Some(Ignored::Marker);
    }
    if !is_readable(key) {
        return Some(Ignored::UnreadableKey);
    }
    if key.split('/').any(is_hidden) {
        return Some(Ignored::Hidden);
    }
    if size == 0 {
        return Some(Ignored::Empty);
    }
    FileType::from_name(name).is_none().then_some(Ignored::UnknownExtension)
}

/// Whether a segment of a key is hidden: the rule of Spark and Hive.
pub(crate) fn is_hidden(segment: &str) -> bool {
    segment.starts_with('.') || (segment.starts_with('_') && !segment.contains('='))
}

/// Which lake format has marked a folder that holds this key, at any depth.
fn lake_format(key: &str) -> Option<&'static str> {
    let below = key.match_indices('/').map(|(slash, _)| &key[slash + 1..]);
    std::iter::once(key).chain(below).find_map(lake_mark)
}

/// Which lake format has marked the folder that this key is relative to.
fn lake_mark(key: &str) -> Option<&'static str> {
    let mut segments = key.split('/');
    let (first, second) = (segments.next()?, segments.next()?);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match first {
        "_delta_log" => Some("Delta Lake"),
        ".hoodie" => Some("Hudi"),
        "metadata" if second.ends_with(".metadata.json") || second == "version-hint.text" => Some("Iceberg"),
        "_versions" if second.ends_with(".manifest") => Some("Lance"),
        _ if first.strip_prefix("base_").is_some_and(digits) => Some("Hive ACID"),
        _ => {
            let (from, to) = first.strip_prefix("delta_")?.split_once('_')?;
            (digits(from) && digits(to.split('_').next()?)).then_some("Hive ACID")
        }
    }
}

/// Which lake format has marked a folder that has a child folder of this name, where no other folder would have it.
pub(crate) fn lake_format_of_child(folder: &str) -> Option<&'static str> {
    match folder {
        "_delta_log" => Some("Delta Lake"),
        ".hoodie" => Some("Hudi"),
        "_versions" => Some("Lance"),
        _ => None,
    }
}

/// Lays out the objects below a table's folder. The result does not depend on their order.
pub(crate) fn lay_out(objects: &[Listed<'_>], rules: &Rules) -> Result<Layout, LayoutError> {
    if objects.is_empty() {
        return Err(LayoutError::Empty);
    }
    if let Some((format, marker)) =
        objects.iter().filter_map(|o| Some((lake_format(o.key)?, o.key))).min_by_key(|m| m.1)
    {
        return Err(LayoutError::Lake { format, marker: format!("\"{marker}\"") });
    }
    let mut candidates: Vec<(usize, Option<Ignored>)> =
        objects.iter().enumerate().map(|(index, object)| (index, object.ignored(rules))).collect();
    candidates.sort_by_key(|(index, _)| objects[*index].key);

    let wanted =
        if candidates.iter().any(|(_, ignored)| ignored.is_none()) { None } else { Some(Ignored::UnknownExtension) };
    let data: Vec<usize> =
        candidates.iter().filter(|(_, ignored)| *ignored == wanted).map(|(index, _)| *index).collect();
    let Some(&first) = data.first() else {
        let (example, reason) =
            candidates.first().map_or((0, Ignored::Marker), |(i, r)| (*i, r.unwrap_or(Ignored::Marker)));
        return Err(LayoutError::OnlyIgnored {
            count: objects.len(),
            example: objects[example].key.to_owned(),
            reason,
        });
    };

    if rules.subfolders == Subfolders::Reject && rules.template.is_none() {
        check_subfolders(data.iter().map(|index| objects[*index].key))?;
    }
    let file_type = rules.file_type(objects[first].key);
    let partitions = |key: &str| {
        let template = || rules.template.as_ref().map(|segments| segments.join("/")).unwrap_or_default();
        rules.partitions(key).ok_or_else(|| LayoutError::Template { key: key.to_owned(), template: template() })
    };
    let (partition_columns, _) = partitions(objects[first].key)?;
    let repeated = |(index, column): (usize, &String)| partition_columns[..index].contains(column);
    if let Some((_, column)) = partition_columns.iter().enumerate().find(|found| repeated(*found)) {
        return Err(LayoutError::RepeatedPartition { key: objects[first].key.to_owned(), column: column.clone() });
    }
    let mut files = Vec::with_capacity(data.len());
    for index in data {
        let key = objects[index].key;
        if let (Some(expected), Some(found)) = (file_type, rules.file_type(key))
            && expected != found
        {
            let first = (objects[first].key.to_owned(), expected);
            return Err(LayoutError::MixedTypes { first, second: (key.to_owned(), found) });
        }
        let (columns, partition_values) = partitions(key)?;
        if columns != partition_columns {
            let first = (objects[first].key.to_owned(), partition_columns);
            return Err(LayoutError::MixedPartitions { first, second: (key.to_owned(), columns) });
        }
        files.push(DataFile { index, partition_values });
    }
    Ok(Layout { file_type, partition_columns, files })
}

fn check_subfolders<'a>(keys: impl Iterator<Item = &'a str>) -> Result<(), LayoutError> {
    let (mut plain, mut total, mut folders) = (None, 0, BTreeSet::new());
    let mut nested = 0;
    for key in keys {
        total += 1;
        if folder(key).split('/').any(|segment| !segment.is_empty() && !segment.contains('=')) {
            nested += 1;
            plain.get_or_insert(key);
            if let Some((first, _)) = key.split_once('/') {
                folders.insert(first);
            }
        }
    }
    match plain {
        None => Ok(()),
        Some(_) if nested == total => {
            Err(LayoutError::Namespace { folders: folders.into_iter().map(str::to_owned).collect() })
        }
        Some(key) => Err(LayoutError::Subfolder { key: key.to_owned() }),
    }
}

/// The folder part of a key, without the `/` at its end; empty for a key without one.
fn folder(key: &str) -> &str {
    key.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl LayoutError {
    /// Says what stands in the way of reading `location`, and what to do about it.
    pub(crate) fn reason(&self, location: &str) -> String {
        match self {
            Self::Empty => "nothing lies there; check the spelling, or refresh the connector".to_owned(),
            Self::OnlyIgnored { count, example, reason } => {
                format!(
                    "it holds no data files: all of its {count} objects are ignored, as \"{example}\" ({reason}); write data there, or query an object by its full path"
                )
            }
            Self::Lake { format, marker } => format!(
                "it is a table of {format}, as {marker} shows: its files are not all live rows; read it with a reader for {format}"
            ),
            Self::Namespace { folders } => {
                let shown: Vec<String> = folders.iter().take(5).map(|folder| format!("{location}{folder}/")).collect();
                let more = folders.len().saturating_sub(shown.len());
                let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
                format!(
                    "it is a folder of folders: use one of them, as {}{more}, make it the root, or set subfolders to recurse",
                    quoted(&shown)
                )
            }
            Self::Subfolder { key } => format!(
                "\"{key}\" lies in a folder that is not key=value, beside data files that do not; move it, or set subfolders to recurse"
            ),
            Self::MixedTypes { first, second } => format!(
                "it mixes formats: \"{}\" is {}, \"{}\" is {}; keep one format in a folder, or name a file in full",
                first.0, first.1, second.0, second.1
            ),
            Self::Template { key, template } => format!(
                "\"{key}\" does not lie in folders like {template}, as its template says; move it, or leave it out by exclude"
            ),
            Self::RepeatedPartition { key, column } => format!(
                "\"{key}\" lies in two folders of the partition column \"{column}\"; rename one of these folders"
            ),
            Self::MixedPartitions { first, second } => format!(
                "its partition folders differ: \"{}\" has {}, \"{}\" has {}; move or remove what does not belong",
                first.0,
                columns(&first.1),
                second.0,
                columns(&second.1)
            ),
        }
    }
}

fn columns(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { format!("({})", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lay_out_keys(keys: &[&str], subfolders: Subfolders) -> Result<(Vec<String>, Vec<String>), LayoutError> {
        let objects: Vec<Listed<'_>> = keys
            .iter()
            .map(|key| {
                let size = u64::from(!key.ends_with('0'));
                Listed { key: key.trim_end_matches('0'), size, is_archived: false }
            })
            .collect();
        let layout = lay_out(&objects, &Rules { subfolders, ..Rules::default() })?;
        let files = layout.files.iter().map(|file| objects[file.index].key.to_owned()).collect();
        Ok((layout.partition_columns, files))
    }

    /// A key that ends in 0 stands for an object of zero bytes.
    #[test]
    fn keys_make_tables() {
        let cases: [(&[&str], &[&str], &[&str]); 6] = [
            (&["b.parquet", "a.parquet"], &[], &["a.parquet", "b.parquet"]),
            (
                &[
                    "_SUCCESS0",
                    "_temporary/x.parquet",
                    ".a.parquet.crc",
                    "a.parquet",
                    "e.parquet0",
                    "README.md",
                    "x_$folder$0",
                ],
                &[],
                &["a.parquet"],
            ),
            (&["y=1/m=2/a.csv", "y=1/m=1/a.csv", "y=10"], &["y", "m"], &["y=1/m=1/a.csv", "y=1/m=2/a.csv"]),
            (&["_y=1/a.csv"], &["_y"], &["_y=1/a.csv"]),
            (&["part-1", "part-2"], &[], &["part-1", "part-2"]),
            (&["a.csv", "part-1"], &[], &["a.csv"]),
        ];
        for (keys, columns, files) in cases {
            let (found_columns, found_files) = lay_out_keys(keys, Subfolders::Reject).unwrap();
            assert_eq!(
                (found_columns, found_files),
                (columns.iter().map(|c| (*c).to_owned()).collect(), files.iter().map(|f| (*f).to_owned()).collect()),
                "{keys:?}"
            );
        }
    }

    #[test]
    fn keys_that_make_no_table_say_why() {
        let cases: [(&[&str], &str); 13] = [
            (&[], "nothing lies there"),
            (&["_SUCCESS0", "x.csv0"], "all of its 2 objects are ignored"),
            (&["_delta_log/1.json", "a.parquet"], "Delta Lake"),
            (&[".hoodie/hoodie.properties", "a.parquet"], "Hudi"),
            (&["metadata/v1.metadata.json", "data/a.parquet"], "Iceberg"),
            (&["_versions/1.manifest", "data/a.lance"], "Lance"),
            (&["delta_1_1/bucket_1", "base_2/bucket_1"], "Hive ACID"),
            (&["a/_delta_log/1.json", "a/x.parquet"], "Delta Lake"),
            (&["a/x.csv", "b/x.csv"], "as \"s3://b/t/a/\" or \"s3://b/t/b/\""),
            (&["x.csv", "b/x.csv"], "\"b/x.csv\" lies in a folder"),
            (&["x.csv", "x.parquet"], "\"x.csv\" is CSV, \"x.parquet\" is Parquet"),
            (&["y=1/z=1/y=2/x.csv"], "partition column \"y\""),
            (&["x.csv", "y=1/x.csv"], "\"x.csv\" has none, \"y=1/x.csv\" has (y)"),
        ];
        for (keys, part) in cases {
            let reason = lay_out_keys(keys, Subfolders::Reject).unwrap_err().reason("s3://b/t/");
            assert!(reason.contains(part), "{keys:?}: {reason}");
        }
        assert!(lay_out_keys(&["x.csv", "x.csv.gz"], Subfolders::Reject).is_err());
    }

    #[test]
    fn subfolders_may_belong() {
        let (columns, files) = lay_out_keys(&["a/x.csv", "b/c/x.csv", "x.csv"], Subfolders::Recurse).unwrap();
        assert!(columns.is_empty());
        assert_eq!(files, ["a/x.csv", "b/c/x.csv", "x.csv"]);
    }

    /// Keys as they lie in buckets, and as nobody would write them.
    fn keys() -> impl Strategy<Value = Vec<(String, u64)>> {
        let segment = prop_oneof![
            4 => "(y|m)=(1|01|2024|a%2Fb|__HIVE_DEFAULT_PARTITION__)",
            3 => "(a|b|part-0)\\.(csv|parquet|csv\\.gz|txt|json)",
            2 => "(_SUCCESS|_temporary|\\.hidden|_delta_log|x_\\$folder\\$|metadata|a\\.crc|\\.\\.|\\.|)",
            1 => any::<String>(),
        ];
        let key = prop::collection::vec(segment, 1..4).prop_map(|segments| segments.join("/"));
        // A key is there once.
        prop::collection::btree_map(key, 0_u64..3, 0..8).prop_map(|keys| keys.into_iter().collect())
    }

    proptest! {
        #[test]
        fn layouts_do_not_depend_on_the_order_of_a_listing(keys in keys(), seed in any::<u64>(), recurse in any::<bool>()) {
            let rules = Rules {
                subfolders: if recurse { Subfolders::Recurse } else { Subfolders::Reject },
                ..Rules::default()
            };
            let laid_out = |keys: &[(String, u64)]| {
                let listed: Vec<Listed<'_>> =
                    keys.iter().map(|(key, size)| Listed { key, size: *size, is_archived: false }).collect();
                lay_out(&listed, &rules).map(|layout| {
                    let files = layout.files.into_iter().map(|file| (keys[file.index].clone(), file.partition_values));
                    (layout.file_type, layout.partition_columns, files.collect::<Vec<_>>())
                })
            };
            let mut shuffled = keys.clone();
            shuffled.sort_by_key(|(key, size)| {
                std::hash::BuildHasher::hash_one(&std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default(), (seed, key, size))
            });
            let expected = laid_out(&keys);
            prop_assert_eq!(&laid_out(&shuffled), &expected);
            // Each object is read or ignored by a rule, and what is read is nothing that cannot be.
            if let Ok((_, columns, files)) = expected {
                for ((key, size), values) in files {
                    prop_assert!(size > 0 && is_readable(&key) && !key.split('/').any(is_hidden), "{:?}", key);
                    prop_assert_eq!(values.len(), columns.len());
                }
            }
        }
    }
}
