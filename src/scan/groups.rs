//! Which parts of which files are read at the same time.
//!
//! DataFusion has one read in flight for each partition, and wants as many partitions as there are cores. S3 takes longer to
//! answer than a small read takes to decode, so a scan gets more partitions than that where what they all read at a time
//! fits into the memory that the settings allow. Every partition asks for its own file or row groups, pruned by
//! DataFusion's own rules: nothing is read that a filter has excluded.

use std::collections::HashSet;
use std::ops::Range;

use datafusion::datasource::listing::{FileRange, PartitionedFile};
use datafusion::datasource::physical_plan::FileGroup;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};

use super::cache::FIRST_READ;
use super::plan::{ScanSource, ScanTable};
use crate::store::{SMALL, STREAM_MEMORY};

/// What a scan may have in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InFlight {
    pub(crate) requests: usize,
    pub(crate) bytes: u64,
}

/// What a partition reads at a time: a row group of a file, or a file.
#[derive(Debug)]
pub(crate) struct Unit {
    file: PartitionedFile,
    /// The part of the file, by where row groups start; `None` for all of it.
    range: Option<Range<u64>>,
    /// Bytes that are in memory while it is read.
    bytes: u64,
}

/// The units of a scan of these files, in order. Row groups are told apart where the footer is cached.
pub(crate) fn units(
    table: &ScanTable,
    source: ScanSource,
    files: Vec<PartitionedFile>,
    wanted: Option<&HashSet<String>>,
) -> Vec<Unit> {
    let mut units = Vec::with_capacity(files.len());
    // The largest part of a file that was read at a time where the footer is known stands for those where it is not.
    let mut share: Option<f64> = None;
    let mut unknown = Vec::new();
    for file in files {
        let size = file.object_meta.size;
        let footer = match source {
            ScanSource::Parquet if size > SMALL => table.footers.peek(&table.store, &file.object_meta),
            _ => None,
        };
        if let Some(row_groups) = footer.as_ref().and_then(|footer| row_groups(footer, size, wanted)) {
            let largest = row_groups.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
            share = Some(share.unwrap_or(0.0).max(largest as f64 / size as f64));
            let part = |(range, bytes)| Unit { file: file.clone(), range: Some(range), bytes };
            units.extend(row_groups.into_iter().map(part));
            continue;
        }
        let bytes = match source {
            ScanSource::Delimited { .. } | ScanSource::Json { .. } => size.min(STREAM_MEMORY),
            ScanSource::Parquet if size > SMALL => {
                unknown.push(units.len());
                size
            }
            ScanSource::Parquet | ScanSource::Arrow | ScanSource::Avro => size,
        };
        units.push(Unit { file, range: None, bytes });
    }
    if let Some(share) = share {
        for unit in unknown {
            units[unit].bytes = FIRST_READ + (units[unit].bytes as f64 * share) as u64;
        }
    }
    units
}

/// The row groups of a file: from where to where DataFusion takes them for one, and how many bytes of it are wanted.
/// `None` where they do not lie one after the other.
fn row_groups(footer: &ParquetMetaData, size: u64, wanted: Option<&HashSet<String>>) -> Option<Vec<(Range<u64>, u64)>> {
    let starts: Option<Vec<u64>> = footer.row_groups().iter().map(start).collect();
    let starts = starts?;
    if starts.is_empty() || !starts.is_sorted_by(|a, b| a < b) || starts.last()? >= &size {
        return None;
    }
    let ends = starts.iter().skip(1).copied().chain([size]);
    // What comes before the first row group belongs to it.
    let starts = std::iter::once(0).chain(starts.iter().skip(1).copied());
    let bytes = footer.row_groups().iter().map(|row_group| wanted_bytes(row_group, wanted));
    Some(starts.zip(ends).map(|(start, end)| start..end).zip(bytes).collect())
}

/// Where DataFusion sees a row group start: at the first page of its first column.
fn start(row_group: &RowGroupMetaData) -> Option<u64> {
    let column = row_group.columns().first()?;
    u64::try_from(column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset())).ok()
}

fn wanted_bytes(row_group: &RowGroupMetaData, wanted: Option<&HashSet<String>>) -> u64 {
    let is_wanted = |root: Option<&String>| wanted.is_none_or(|wanted| root.is_some_and(|root| wanted.contains(root)));
    let columns = row_group.columns().iter().filter(|column| is_wanted(column.column_path().parts().first()));
    columns.map(|column| u64::try_from(column.compressed_size()).unwrap_or(0)).sum()
}

/// Groups of units that are read at the same time: as many as fit into what may be in flight, and at least one for each
/// partition that DataFusion wants. Units stay in order, neighbours together.
pub(crate) fn group(units: Vec<Unit>, target_partitions: usize, in_flight: InFlight) -> Vec<FileGroup> {
    let count = concurrency(units.iter().map(|unit| unit.bytes).collect(), in_flight);
    if count <= target_partitions {
        // DataFusion splits files as it does its own.
        let mut files: Vec<PartitionedFile> = Vec::new();
        for unit in units {
            if files.last().is_none_or(|file| file.object_meta.location != unit.file.object_meta.location) {
                files.push(unit.file);
            }
        }
        return FileGroup::new(files).split_files(target_partitions);
    }
    let total: u64 = units.iter().map(weight).sum();
    let mut groups: Vec<Vec<PartitionedFile>> = Vec::new();
    let (mut before, mut latest) = (0_u64, None);
    for unit in units {
        let middle = before + weight(&unit) / 2;
        before += weight(&unit);
        let group = u128::from(middle) * count as u128 / u128::from(total.max(1));
        if latest != Some(group) {
            groups.push(Vec::new());
            latest = Some(group);
        }
        if let Some(group) = groups.last_mut() {
            add(group, unit);
        }
    }
    groups.into_iter().map(FileGroup::new).collect()
}

fn weight(unit: &Unit) -> u64 {
    unit.bytes.max(1)
}

/// How many units of these sizes may be read at a time, whichever they are.
fn concurrency(mut sizes: Vec<u64>, in_flight: InFlight) -> usize {
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let mut total = 0_u64;
    let mut fits = |size: &u64| {
        total = total.saturating_add(*size);
        total <= in_flight.bytes
    };
    sizes.iter().take(in_flight.requests).take_while(|size| fits(size)).count()
}

/// Adds a unit to a group, to the part of the same file before it where there is one.
fn add(group: &mut Vec<PartitionedFile>, unit: Unit) {
    let Unit { mut file, range, .. } = unit;
    let range = range.and_then(|range| {
        Some(FileRange { start: i64::try_from(range.start).ok()?, end: i64::try_from(range.end).ok()? })
    });
    if let (Some(last), Some(range)) = (group.last_mut(), &range)
        && last.object_meta.location == file.object_meta.location
        && let Some(known) = &mut last.range
    {
        known.end = range.end;
    } else {
        file.range = range;
        group.push(file);
    }
    // A range that is all of the file is none.
    if let Some(last) = group.last_mut()
        && last.range.as_ref().is_some_and(|range| range.start == 0 && range.end as u64 == last.object_meta.size)
    {
        last.range = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;
    const IN_FLIGHT: InFlight = InFlight { requests: 64, bytes: 128 * MIB };

    fn file(number: usize, size: u64) -> PartitionedFile {
        PartitionedFile::new(format!("{number:03}"), size)
    }

    #[test]
    fn as_many_files_are_read_at_a_time_as_fit() {
        for (count, size, expected) in [
            (1, 100, 4),
            (3, 100, 4),
            (40, 100, 40),
            (1_000, 54_000, 64),
            (1_000, 2 * MIB, 64),
            (1_000, 8 * MIB, 16),
            (1_000, 100 * MIB, 4),
            (10, 0, 10),
        ] {
            let unit = |number| Unit { file: file(number, size), range: None, bytes: size };
            let groups = group((0..count).map(unit).collect(), 4, IN_FLIGHT);
            assert_eq!(groups.len(), expected.min(count), "{count} files of {size} bytes");
            let read: Vec<String> =
                groups.iter().flat_map(FileGroup::iter).map(|file| file.object_meta.location.to_string()).collect();
            assert!((0..count).map(|number| format!("{number:03}")).eq(read), "{count} files in order");
            let sizes: Vec<usize> = groups.iter().map(FileGroup::len).collect();
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            assert!(most - least <= 1 || expected == 4, "{sizes:?}");
        }
    }

    #[test]
    fn row_groups_of_a_file_stay_together_where_they_are_read_together() {
        let unit = |(file_number, start, end): (usize, u64, u64)| Unit {
            file: file(file_number, 40),
            range: Some(start..end),
            bytes: end - start,
        };
        let units = [(0, 0, 10), (0, 10, 20), (0, 20, 30), (0, 30, 40), (1, 0, 20), (1, 20, 40)];
        for (requests, expected) in [
            (3, vec!["000 0..30", "000 30..40, 001 0..20", "001 20..40"]),
            (4, vec!["000 0..20", "000 20..40", "001 0..20", "001 20..40"]),
            (2, vec!["000", "001"]),
        ] {
            let groups = group(units.map(unit).into_iter().collect(), 1, InFlight { requests, bytes: 1_000 });
            let shown: Vec<String> = groups
                .iter()
                .map(|group| {
                    let show = |file: &PartitionedFile| match &file.range {
                        Some(range) => format!("{} {}..{}", file.object_meta.location, range.start, range.end),
                        None => file.object_meta.location.to_string(),
                    };
                    group.iter().map(show).collect::<Vec<_>>().join(", ")
                })
                .collect();
            assert_eq!(shown, expected, "{requests} requests");
        }
    }

    #[test]
    fn the_largest_units_decide_how_many_fit() {
        for (sizes, expected) in [
            (vec![], 0),
            (vec![200 * MIB], 0),
            (vec![64 * MIB, 1, 64 * MIB], 2),
            (vec![MIB; 1_000], 64),
            (vec![0; 10], 10),
        ] {
            assert_eq!(concurrency(sizes.clone(), IN_FLIGHT), expected, "{sizes:?}");
        }
    }
}
