//! How a table is read: pinned files in groups, handed to DataFusion's own `DataSourceExec`.

mod cache;
pub(crate) mod footer;
mod groups;
mod late;
mod plan;
mod reader;
mod shape;

pub(crate) use self::cache::{FIRST_READ, FooterCache};
pub(crate) use self::groups::InFlight;
pub(crate) use self::plan::{Delimited, FileShape, STATISTICS_BYTES, ScanFile, ScanSource, ScanTable, scan};
pub(crate) use self::reader::read_end;
