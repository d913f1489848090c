//! How a table is read: pinned files in groups, handed to DataFusion's own `DataSourceExec`.

mod cache;
mod groups;
mod late;
mod plan;
mod reader;

pub(crate) use self::cache::{FIRST_READ, FooterCache};
pub(crate) use self::groups::InFlight;
pub(crate) use self::plan::{STATISTICS_BYTES, ScanFile, ScanSource, ScanTable, scan};
pub(crate) use self::reader::read_end;
