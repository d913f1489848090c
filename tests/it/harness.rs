//! What the tests share: a server with data, a session with a connector, rows as text.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use bytes::Bytes;
use datafusion::error::DataFusionError;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_s3::{S3Connector, S3ConnectorBuilder};
use datafusion_s3_testbed::Testbed;
use parquet::arrow::ArrowWriter;

/// A builder of connectors to a testbed, independent of the environment.
pub(crate) fn connector(testbed: &Testbed) -> S3ConnectorBuilder {
    S3Connector::builder()
        .with_environment(false)
        .with_endpoint(testbed.endpoint())
        .with_region(testbed.region())
        .with_access_key(testbed.access_key_id(), testbed.secret_access_key())
        .with_allow_http(true)
}

/// A session with the information schema, so that SHOW TABLES works.
pub(crate) fn session() -> SessionContext {
    SessionContext::new_with_config(SessionConfig::new().with_information_schema(true))
}

/// A session with the children of `s3://bucket/folder` as tables of schema `s3`.
pub(crate) async fn registered(testbed: &Testbed, root: &str) -> (SessionContext, S3Connector) {
    let ctx = session();
    let s3 = connector(testbed).with_root(root).build().unwrap();
    s3.register(&ctx, "s3").await.unwrap();
    (ctx, s3)
}

/// The rows of a query.
pub(crate) async fn query(ctx: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>, DataFusionError> {
    ctx.sql(sql).await?.collect().await
}

/// The rows of a query that succeeds, each as its values joined by `|`, in the query's order.
pub(crate) async fn rows(ctx: &SessionContext, sql: &str) -> Vec<String> {
    let batches = query(ctx, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let Some(first) = batches.first() else { return Vec::new() };
    let names = first.schema().fields().len();
    let table = pretty_format_batches(&batches).unwrap().to_string();
    let lines = table.lines().filter(|line| line.starts_with('|')).skip(1);
    lines
        .map(|line| {
            let values: Vec<&str> = line.trim_matches('|').splitn(names, '|').map(str::trim).collect();
            values.join("|")
        })
        .collect()
}

/// The message of a query that fails.
pub(crate) async fn error(ctx: &SessionContext, sql: &str) -> String {
    match query(ctx, sql).await {
        Ok(batches) => panic!("{sql} succeeded:\n{}", pretty_format_batches(&batches).unwrap()),
        Err(error) => error.to_string(),
    }
}

/// A batch with columns `id` (from `first`, so many rows) and `name` (`n` and the id).
pub(crate) fn batch(first: i64, rows: i64) -> RecordBatch {
    let ids = first..first + rows;
    let names = ids.clone().map(|id| format!("n{id}"));
    let columns: [(&str, ArrayRef); 2] =
        [("id", Arc::new(Int64Array::from_iter_values(ids))), ("name", Arc::new(StringArray::from_iter_values(names)))];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// A batch as a Parquet file.
pub(crate) fn parquet(batch: &RecordBatch) -> Bytes {
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    file.into()
}

/// The most requests that were open at a time.
pub(crate) fn most_in_flight(testbed: &Testbed) -> usize {
    let log = testbed.log();
    let open = |at| log.iter().filter(|r| r.started <= at && at < r.started + r.elapsed).count();
    log.iter().map(|record| open(record.started)).max().unwrap_or(0)
}
