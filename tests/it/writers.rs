//! Parquet files by pyarrow, DuckDB and Polars, read back: `eval "$(tests/compat/writers.sh)" && cargo test …`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use arrow::compute::{cast, concat_batches};
use arrow::ipc::reader::FileReader;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion_s3_testbed::Testbed;

use crate::harness::{query, registered};

/// Each `<name>.parquet` in the folder holds what `<name>.arrow` says.
#[tokio::test]
async fn files_by_other_writers_read_back_equal() {
    let Some(folder) = std::env::var_os("S3_COMPAT_FILES").filter(|folder| !folder.is_empty()) else {
        // Not by `eprintln!`, which a passing test keeps to itself.
        writeln!(
            io::stderr(),
            "writers: skipped: S3_COMPAT_FILES is not set; run eval \"$(tests/compat/writers.sh)\" first"
        )
        .unwrap();
        return;
    };
    let testbed = Testbed::builder().bucket("lake").start().await.unwrap();
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "parquet"));
    files.sort();
    assert!(files.len() > 20, "{files:?}");
    for file in &files {
        let key = format!("files/{}", file.file_name().unwrap().to_str().unwrap());
        testbed.put("lake", &key, fs::read(file).unwrap()).await.unwrap();
    }
    let (ctx, _s3) = registered(&testbed, "s3://lake/files").await;
    let mut differences = Vec::new();
    for file in &files {
        let table = file.file_stem().unwrap().to_str().unwrap();
        let expected = written(&file.with_extension("arrow"));
        match query(&ctx, &format!("SELECT * FROM s3.\"{table}\"")).await {
            Ok(batches) => {
                let found = match batches.first() {
                    Some(first) => concat_batches(&first.schema(), &batches).unwrap(),
                    None => RecordBatch::new_empty(expected.schema()),
                };
                differences.extend(difference(&found, &expected).map(|difference| format!("{table}: {difference}")));
            }
            Err(error) => differences.push(format!("{table}: {error}")),
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// The rows of an Arrow IPC file.
fn written(file: &Path) -> RecordBatch {
    let reader = FileReader::try_new(File::open(file).unwrap(), None).unwrap();
    let schema = reader.schema();
    let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

/// The first value of each column that is another, with the types. Text, bytes and dictionaries may be encoded otherwise.
fn difference(found: &RecordBatch, expected: &RecordBatch) -> Option<String> {
    if found.num_columns() != expected.num_columns() || found.num_rows() != expected.num_rows() {
        return Some(format!(
            "{} columns of {} rows instead of {} of {}",
            found.num_columns(),
            found.num_rows(),
            expected.num_columns(),
            expected.num_rows()
        ));
    }
    let options = FormatOptions::default().with_null("NULL");
    let mut differences = Vec::new();
    for (index, field) in expected.schema().fields().iter().enumerate() {
        let column = found.column_by_name(field.name());
        let Some(column) = column else {
            differences.push(format!("no column {}", field.name()));
            continue;
        };
        let values = match cast(expected.column(index), column.data_type()) {
            Ok(values) => values,
            Err(error) => {
                differences.push(format!("{} is {}: {error}", field.name(), column.data_type()));
                continue;
            }
        };
        let (found, expected) =
            (ArrayFormatter::try_new(column, &options).unwrap(), ArrayFormatter::try_new(&values, &options).unwrap());
        let mut rows = (0..values.len()).map(|row| (found.value(row).to_string(), expected.value(row).to_string()));
        if let Some((found, expected)) = rows.find(|(found, expected)| found != expected) {
            differences.push(format!("{} {}: {found} instead of {expected}", field.name(), column.data_type()));
        }
    }
    (!differences.is_empty()).then(|| differences.join("; "))
}
