//! Every table behind an S3 root answers SQL in [DataFusion](datafusion).
//!
//! Point an [`S3Connector`] at a root; each file and each folder of files under it is a table, with an Arrow schema that
//! is inferred when the table is first used. There is no crawler, no metastore and no `CREATE EXTERNAL TABLE`.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use datafusion::prelude::SessionContext;
//! use datafusion_s3::S3Connector;
//!
//! let ctx = SessionContext::new();
//! let s3 = S3Connector::builder().with_root("s3://bucket/shop").build()?;
//! s3.register(&ctx, "s3").await?;
//! ctx.sql("SELECT * FROM s3.articles LIMIT 10").await?.show().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is a table
//!
//! A file whose name ends in a known extension, and a folder that holds such files directly or in `key=value` folders.
//! Formats are Parquet, CSV, TSV, JSON (newline-delimited, or one array), Arrow IPC and Avro; CSV, TSV and JSON also
//! compressed (`.gz`, `.bz2`, `.xz`, `.zst`). Markers, hidden files and empty objects are passed over; whatever else
//! does not fit is an [`Error`] that names the object, never a missing row.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `cli` | no | the shell `s3sql`, with clap and all of DataFusion's SQL functions |

mod catalog;
mod connector;
mod error;
mod format;
mod location;
mod scan;
mod settings;
mod store;
mod table;
mod widen;

pub use connector::{CacheCounts, S3Connector, S3ConnectorBuilder};
pub use error::{Error, Result};
pub use format::Format;
pub use location::S3Location;
pub use settings::{ArchivedObjects, ConnectorSettings, CsvSettings, SchemaPolicy, Secret, Subfolders, TableSettings};
pub use store::{CacheUse, RequestCounts};
pub use table::S3Table;
