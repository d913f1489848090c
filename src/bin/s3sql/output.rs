//! From the rows of a statement to text. All formats but the table are written batch by batch.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::csv;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json;
use arrow::json::writer::{JsonArray, LineDelimited};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches_with_schema;
use clap::ValueEnum;
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;

use crate::failure::Failure;

/// What results are printed as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns in a frame; shown when all rows are there
    Table,
    /// Comma-separated, with a header
    Csv,
    /// Tab-separated, with a header
    Tsv,
    /// One array of objects
    Json,
    /// One object in each line
    Ndjson,
}

/// Prints rows and returns how many there were; `None` where the statement has no result and nothing is printed.
pub(crate) async fn print(
    mut rows: SendableRecordBatchStream,
    format: Format,
    out: &mut impl Write,
) -> Result<Option<u64>, Failure> {
    let schema = rows.schema();
    if schema.fields().is_empty() {
        while rows.try_next().await?.is_some() {}
        return Ok(None);
    }
    let Some(mut encoder) = Encoder::new(format, &schema) else {
        let batches: Vec<RecordBatch> = rows.try_collect().await?;
        writeln!(out, "{}", pretty_format_batches_with_schema(schema, &batches)?)?;
        return Ok(Some(batches.iter().map(|batch| batch.num_rows() as u64).sum()));
    };
    let mut count = 0;
    while let Some(batch) = rows.try_next().await? {
        count += batch.num_rows() as u64;
        out.write_all(&encoder.encode(&batch)?)?;
    }
    out.write_all(&encoder.finish()?)?;
    Ok(Some(count))
}

/// The state of a result that is being written.
///
/// Arrow's writers write into memory, not to standard output: the CSV writer makes a text of an I/O error, and a closed
/// pipe could no longer be told.
enum Encoder {
    Delimited { delimiter: u8, header: Option<SchemaRef> },
    Json(json::Writer<Vec<u8>, JsonArray>),
    Ndjson(json::Writer<Vec<u8>, LineDelimited>),
}

impl Encoder {
    /// `None` for a table, whose widths depend on all rows.
    fn new(format: Format, schema: &SchemaRef) -> Option<Self> {
        let delimited = |delimiter| Encoder::Delimited { delimiter, header: Some(Arc::clone(schema)) };
        // Every object has all keys, so that any of them tells the columns.
        let json = json::WriterBuilder::new().with_explicit_nulls(true);
        match format {
            Format::Table => None,
            Format::Csv => Some(delimited(b',')),
            Format::Tsv => Some(delimited(b'\t')),
            Format::Json => Some(Self::Json(json.build(Vec::new()))),
            Format::Ndjson => Some(Self::Ndjson(json.build(Vec::new()))),
        }
    }

    fn encode(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        match self {
            Self::Delimited { delimiter, header } => delimited(batch, *delimiter, header.take().is_some()),
            Self::Json(writer) => {
                writer.write(batch)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Self::Ndjson(writer) => {
                writer.write(batch)?;
                Ok(std::mem::take(writer.get_mut()))
            }
        }
    }

    /// What is left to write after the last batch.
    fn finish(self) -> Result<Vec<u8>, ArrowError> {
        match self {
            Self::Delimited { delimiter, header: Some(schema) } => {
                delimited(&RecordBatch::new_empty(schema), delimiter, true)
            }
            Self::Json(mut writer) => {
                writer.finish()?;
                let mut end = writer.into_inner();
                end.push(b'\n');
                Ok(end)
            }
            Self::Delimited { header: None, .. } | Self::Ndjson(_) => Ok(Vec::new()),
        }
    }
}

fn delimited(batch: &RecordBatch, delimiter: u8, header: bool) -> Result<Vec<u8>, ArrowError> {
    let builder = csv::WriterBuilder::new().with_delimiter(delimiter).with_header(header);
    let mut writer = builder.build(Vec::new());
    writer.write(&flat(batch)?)?;
    Ok(writer.into_inner())
}

/// A batch whose nested columns are text, as `[1, 2]` or `{a: 1}`: Arrow's CSV writer refuses them as they are.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    if !batch.columns().iter().any(|column| column.data_type().is_nested()) {
        return Ok(batch.clone());
    }
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if column.data_type().is_nested() {
            fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
            columns.push(text(column)?);
        } else {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn text(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    // A null in a list must not look like nothing; a column's null stays empty, as in other columns.
    let options = FormatOptions::default().with_null("null").with_display_error(false);
    let formatter = ArrayFormatter::try_new(column, &options)?;
    let values = (0..column.len())
        .map(|row| column.is_valid(row).then(|| formatter.value(row).try_to_string()).transpose())
        .collect::<Result<StringArray, ArrowError>>()?;
    Ok(Arc::new(values))
}
