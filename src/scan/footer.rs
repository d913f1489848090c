//! What a Parquet footer says in the terms of a table: columns, whether they fit, statistics.

use std::cmp::Ordering;

use arrow::datatypes::{DataType, Fields, Schema, SchemaRef};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::physical_plan::parquet::transform_schema_to_view;
use object_store::ObjectMeta;
use parquet::arrow::parquet_to_arrow_schema;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics as ColumnChunkStatistics;

use crate::error::{Error, Result};
use crate::store::BucketStore;
use crate::widen::{EXACT_IN_FLOAT64, is_wider};

/// The columns of a file as DataFusion reads them.
pub(crate) fn columns(footer: &ParquetMetaData) -> std::result::Result<Schema, ParquetError> {
    let metadata = footer.file_metadata();
    let schema = parquet_to_arrow_schema(metadata.schema_descr(), metadata.key_value_metadata())?;
    Ok(transform_schema_to_view(&schema))
}

/// Checks that each column of a file holds only values that the table's column of that name can hold. Columns that the
/// table does not have do not matter.
pub(crate) fn check_fit(
    footer: &ParquetMetaData,
    table: &Schema,
    store: &BucketStore,
    object: &ObjectMeta,
) -> Result<()> {
    let location = || format!("s3://{}/{}", store.bucket(), object.location);
    let columns = columns(footer).map_err(|error| Error::DataFusion(error.into()))?;
    for field in columns.fields() {
        let Ok(column) = table.field_with_name(field.name()) else { continue };
        let conflict = |reason: String| Err(Error::SchemaConflict { reason });
        if !is_wider(column.data_type(), field.data_type()) {
            return conflict(format!(
                "column \"{}\" is {} in the table and {} in {}; set schema_policy to all, so that the table's type comes from all files, declare a type that holds both, or rewrite that file",
                field.name(),
                column.data_type(),
                field.data_type(),
                location()
            ));
        }
        if has(column.data_type(), &DataType::Float64)
            && has(field.data_type(), &DataType::Int64)
            && !is_exact_in_float64(footer, field.name())
        {
            return conflict(format!(
                "column \"{}\" is {} in the table and {} in {}, whose values may be too large for that (beyond 2^53); rewrite that file, or declare the column's type",
                field.name(),
                column.data_type(),
                field.data_type(),
                location()
            ));
        }
    }
    Ok(())
}

/// Checks that columns which a file has beside those of its folder do not say otherwise, as far as statistics tell. The
/// folder's value is the one that counts.
pub(crate) fn check_agreement(
    footer: &ParquetMetaData,
    partition_columns: &Fields,
    values: &[ScalarValue],
    store: &BucketStore,
    object: &ObjectMeta,
) -> Result<()> {
    let columns: SchemaRef = columns(footer).map_err(|error| Error::DataFusion(error.into()))?.into();
    let in_file = |name: &str| columns.index_of(name).ok();
    let both: Vec<_> = partition_columns
        .iter()
        .zip(values)
        .filter(|(_, value)| !value.is_null())
        .filter_map(|(column, value)| Some((column, value, in_file(column.name())?)))
        .collect();
    if both.is_empty() {
        return Ok(());
    }
    let statistics = DFParquetMetadata::statistics_from_parquet_metadata(footer, &columns)?;
    for (column, value, index) in both {
        let ColumnStatistics { min_value, max_value, .. } = &statistics.column_statistics[index];
        // By the file's type, in which 01 is 1.
        let Ok(value) = value.cast_to(columns.field(index).data_type()) else { continue };
        let (Some(min), Some(max)) = (min_value.get_value(), max_value.get_value()) else { continue };
        if value.partial_cmp(min) == Some(Ordering::Less) || value.partial_cmp(max) == Some(Ordering::Greater) {
            let range = if min == max { min.to_string() } else { format!("{min} to {max}") };
            return Err(Error::SchemaConflict {
                reason: format!(
                    "the partition column \"{}\" is {value} by the folder of s3://{}/{}, whose rows say {range}; move the file, or rename its column",
                    column.name(),
                    store.bucket(),
                    object.location
                ),
            });
        }
    }
    Ok(())
}

/// Whether a type is this one, or has it inside.
fn has(data_type: &DataType, wanted: &DataType) -> bool {
    use DataType::*;
    match data_type {
        List(field)
        | LargeList(field)
        | FixedSizeList(field, _)
        | ListView(field)
        | LargeListView(field)
        | Map(field, _) => has(field.data_type(), wanted),
        Struct(fields) => fields.iter().any(|field| has(field.data_type(), wanted)),
        Dictionary(_, values) => has(values, wanted),
        other => other == wanted,
    }
}

/// Whether the statistics of a column show that all of its integers are exact in a `Float64`.
fn is_exact_in_float64(footer: &ParquetMetaData, name: &str) -> bool {
    let columns = footer.row_groups().iter().flat_map(|group| group.columns());
    let mut of_name = columns.filter(|column| column.column_path().parts().first().is_some_and(|part| part == name));
    of_name.all(|column| match column.statistics() {
        Some(ColumnChunkStatistics::Int64(values)) => {
            let is_exact = |value: &i64| value.unsigned_abs() <= EXACT_IN_FLOAT64.unsigned_abs();
            match (values.min_opt(), values.max_opt()) {
                (Some(min), Some(max)) => is_exact(min) && is_exact(max),
                _ => values.null_count_opt() == u64::try_from(column.num_values()).ok(),
            }
        }
        Some(_) => true,
        None => false,
    })
}

/// The statistics of a file in the columns and types of its table. A column that the file lacks is NULL in each row.
pub(crate) fn statistics(footer: &ParquetMetaData, table: &Schema) -> Result<Statistics> {
    let columns: SchemaRef = columns(footer).map_err(|error| Error::DataFusion(error.into()))?.into();
    // By the file's own types: DataFusion would take the values of one unit for those of another.
    let of_file = DFParquetMetadata::statistics_from_parquet_metadata(footer, &columns)?;
    let column_statistics = table.fields().iter().map(|field| match columns.index_of(field.name()) {
        Ok(index) => in_type(&of_file.column_statistics[index], field.data_type()),
        Err(_) => ColumnStatistics { null_count: of_file.num_rows, ..ColumnStatistics::new_unknown() },
    });
    let column_statistics = column_statistics.collect();
    Ok(Statistics { num_rows: of_file.num_rows, total_byte_size: of_file.total_byte_size, column_statistics })
}

/// The same statistics for the column of a table: widening keeps the order of values.
fn in_type(column: &ColumnStatistics, data_type: &DataType) -> ColumnStatistics {
    let cast = |value: &Precision<ScalarValue>| {
        let of_type = value.get_value().and_then(|value| value.cast_to(data_type).ok());
        match (of_type, value.is_exact()) {
            (Some(value), Some(true)) => Precision::Exact(value),
            (Some(value), _) => Precision::Inexact(value),
            (None, _) => Precision::Absent,
        }
    };
    ColumnStatistics {
        min_value: cast(&column.min_value),
        max_value: cast(&column.max_value),
        sum_value: Precision::Absent,
        ..column.clone()
    }
}
