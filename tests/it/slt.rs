//! Runs `sql/*.slt`, each over the folder of fixtures of its name, and the scripts in `sql/demo`.
//!
//! `SLT_COMPLETE=1 cargo test slt` writes what the library answers into the files, for a look at the diff.

use std::fs;
use std::path::PathBuf;

use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::error::DataFusionError;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::DFParser;
use datafusion_s3::S3ConnectorBuilder;
use datafusion_s3_testbed::Testbed;
use sqllogictest::{
    AsyncDB, DBOutput, DefaultColumnType, Runner, default_column_validator, default_normalizer, default_validator,
};

use crate::fixtures;
use crate::harness::connector;

/// The bucket that the files speak of.
const BUCKET: &str = "lake";

/// Where the fixtures lie on a server: in a bucket, below a prefix that is empty or ends in `/`.
///
/// The files say `s3://lake/` for it, whatever it is.
pub(crate) struct Place {
    pub(crate) connector: S3ConnectorBuilder,
    pub(crate) bucket: String,
    pub(crate) prefix: String,
}

impl Place {
    /// A testbed with all fixtures.
    async fn testbed() -> (Testbed, Self) {
        let testbed = Testbed::builder().bucket(BUCKET).start().await.unwrap();
        for (key, bytes) in fixtures::shared().await.into_iter().chain(fixtures::testbed_only()) {
            testbed.put(BUCKET, &key, bytes).await.unwrap();
        }
        let place = Self { connector: connector(&testbed), bucket: BUCKET.into(), prefix: String::new() };
        (testbed, place)
    }

    /// From what a file says to what the server is asked.
    fn localized(&self, sql: &str) -> String {
        sql.replace(&format!("://{BUCKET}/"), &format!("://{}/{}", self.bucket, self.prefix))
    }

    /// From what the library says to what a file says.
    fn generalized(&self, text: &str) -> String {
        let text = text.replace(&format!("://{}/{}", self.bucket, self.prefix), &format!("://{BUCKET}/"));
        if self.prefix.is_empty() { text } else { text.replace(&self.prefix, "") }
    }

    /// A session whose schema `s3` has the children of a folder of fixtures as its tables.
    async fn session(&self, folder: &str) -> SessionContext {
        let mut config = SessionConfig::new().with_information_schema(true).with_target_partitions(4);
        config.options_mut().explain.physical_plan_only = true;
        let ctx = SessionContext::new_with_config(config);
        let s3 = self.connector.clone().with_root(self.localized(&format!("s3://{BUCKET}/{folder}"))).build().unwrap();
        s3.register(&ctx, "s3").await.unwrap();
        ctx
    }

    /// Runs `sql/<suite>.slt`; panics with file and line where an answer is another.
    pub(crate) async fn run_suite(&self, suite: &str) {
        let file = folder().join(format!("{suite}.slt"));
        let mut runner = Runner::new(|| async { Ok(Database { ctx: self.session(suite).await, place: self }) });
        if std::env::var_os("SLT_COMPLETE").is_some() {
            let validator = default_validator;
            let columns = default_column_validator;
            runner.update_test_file(&file, " ", validator, default_normalizer, columns).await.unwrap();
        } else if let Err(error) = runner.run_file_async(&file).await {
            panic!("{}", error.display(false));
        }
    }

    /// Runs every script in `sql/demo`; panics where a statement fails.
    pub(crate) async fn run_demos(&self) {
        for file in files("demo", "sql") {
            let ctx = self.session("shop").await;
            let text = fs::read_to_string(folder().join("demo").join(&file)).unwrap();
            for statement in DFParser::parse_sql(&self.localized(&text)).unwrap() {
                let shown = statement.to_string();
                let run = async {
                    let plan = ctx.state().statement_to_plan(statement).await?;
                    ctx.execute_logical_plan(plan).await?.collect().await
                };
                let rows = run.await.unwrap_or_else(|error| panic!("{file}: {shown}: {error}"));
                let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
                assert!(count > 0, "{file}: {shown}: a demo shows something");
            }
        }
    }
}

/// One session, as sqllogictest sees a database.
struct Database<'a> {
    ctx: SessionContext,
    place: &'a Place,
}

/// The message of an error, in terms of the bucket that the files speak of.
#[derive(Debug)]
struct Failure(String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl Database<'_> {
    async fn query(&self, sql: &str) -> Result<DBOutput<DefaultColumnType>, DataFusionError> {
        let frame = self.ctx.sql(&self.place.localized(sql)).await?;
        let types: Vec<_> = frame.schema().fields().iter().map(|field| column_type(field.data_type())).collect();
        let batches = frame.collect().await?;
        if types.is_empty() {
            return Ok(DBOutput::StatementComplete(0));
        }
        let mut rows = Vec::new();
        for batch in &batches {
            rows.extend(self.rows(batch)?);
        }
        Ok(DBOutput::Rows { types, rows })
    }

    /// The rows of a batch as text: NULL, `(empty)`, everything else as Arrow writes it. What has several lines, as a
    /// plan does, becomes as many rows, numbered, with `--` for each step of indentation.
    fn rows(&self, batch: &RecordBatch) -> Result<Vec<Vec<String>>, DataFusionError> {
        let options = FormatOptions::default().with_null("NULL");
        let columns = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
            .collect::<Result<Vec<_>, _>>()?;
        let mut rows = Vec::new();
        for row in 0..batch.num_rows() {
            let values: Vec<String> =
                columns.iter().map(|column| self.place.generalized(&column.value(row).to_string())).collect();
            match &values[..] {
                [kind, plan] if kind.ends_with("_plan") => {
                    rows.push(vec![kind.clone()]);
                    rows.extend(plan.trim_end().lines().enumerate().map(|(index, line)| {
                        let text = line.trim_start();
                        let indentation = "-".repeat(line.len() - text.len());
                        vec![format!("{:02}){indentation}{text}", index + 1)]
                    }));
                }
                _ => {
                    let visible = |value: String| match value.as_str() {
                        "" => "(empty)".to_owned(),
                        value => value.replace('\n', "\\n"),
                    };
                    rows.push(values.into_iter().map(visible).collect());
                }
            }
        }
        Ok(rows)
    }
}

#[async_trait::async_trait]
impl AsyncDB for Database<'_> {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        self.query(sql).await.map_err(|error| Failure(self.place.generalized(&error.to_string())))
    }

    async fn shutdown(&mut self) {}
}

fn column_type(data_type: &DataType) -> DefaultColumnType {
    match data_type {
        _ if data_type.is_integer() => DefaultColumnType::Integer,
        _ if data_type.is_floating() => DefaultColumnType::FloatingPoint,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DefaultColumnType::Text,
        _ => DefaultColumnType::Any,
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("sql")
}

/// The names of the files in a folder of `sql` that end in `.extension`, in order.
fn files(subfolder: &str, extension: &str) -> Vec<String> {
    let entries = fs::read_dir(folder().join(subfolder)).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(&format!(".{extension}")));
    names.sort();
    names
}

/// A test for each file in `sql`, and the list of them.
macro_rules! suites {
    ($($suite:ident),* $(,)?) => {
        pub(crate) const SUITES: &[&str] = &[$(stringify!($suite)),*];

        $(#[tokio::test]
        async fn $suite() {
            let (_testbed, place) = Place::testbed().await;
            place.run_suite(stringify!($suite)).await;
        })*
    };
}

suites!(discovery, errors, formats, partitions, pushdown, schemas);

#[test]
fn every_file_is_a_suite() {
    let expected: Vec<String> = SUITES.iter().map(|suite| format!("{suite}.slt")).collect();
    assert_eq!(files("", "slt"), expected);
}

#[tokio::test]
async fn demos() {
    let (_testbed, place) = Place::testbed().await;
    place.run_demos().await;
}
