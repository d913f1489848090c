//! Files of one table that a source reads by other columns: which they are, and how their rows become the table's.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal, case, in_list, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;

use super::plan::{FileShape, ScanSource};

/// How a source reads a file.
#[derive(Debug, PartialEq)]
pub(super) struct ReadAs {
    pub(super) source: ScanSource,
    /// The columns of the file in their order; `None` where they are those of the table.
    pub(super) columns: Option<SchemaRef>,
}

impl ReadAs {
    /// `has_nulls` says that text has spellings of NULL that sources do not know: then it is read as text.
    pub(super) fn new(table: &TableSchema, shape: Option<&FileShape>, has_nulls: bool) -> Self {
        let Some(FileShape { source, columns }) = shape else {
            return Self { source: ScanSource::Parquet, columns: None };
        };
        let columns = match source {
            ScanSource::Delimited(_) if has_nulls => Some(text_columns(&Schema::empty(), columns)),
            ScanSource::Delimited(_) => Some(text_columns(table.file_schema(), columns)),
            ScanSource::Arrow => Some(columns.clone()),
            ScanSource::Parquet | ScanSource::Json { .. } | ScanSource::Avro => None,
        };
        let is_other = |columns: &Fields| {
            let is_text = has_nulls && matches!(source, ScanSource::Delimited(_));
            is_text || !is_alike(columns, table.file_schema().fields())
        };
        let columns = columns.filter(is_other).map(|columns| beside(&columns, table.table_partition_cols()));
        Self { source: *source, columns }
    }
}

fn is_alike(a: &Fields, b: &Fields) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type())
}

/// The columns of delimited text, in the types of the table, which the source parses. Others are not parsed.
fn text_columns(table: &Schema, columns: &Fields) -> Fields {
    let column = |column: &Arc<Field>| match table.field_with_name(column.name()) {
        Ok(known) => known.clone(),
        Err(_) => Field::new(column.name(), DataType::Utf8, true),
    };
    columns.iter().map(column).collect()
}

/// The columns with other names for those that folders give: the folder's value is the one that counts.
fn beside(columns: &Fields, partition_columns: &Fields) -> SchemaRef {
    let column = |column: &Arc<Field>| match partition_columns.find(column.name()) {
        Some(_) => Arc::new(column.as_ref().clone().with_name(format!("{} in the file", column.name()))),
        None => Arc::clone(column),
    };
    Arc::new(Schema::new(columns.iter().map(column).collect::<Fields>()))
}

/// The columns that a query wants of files with other columns than the table.
pub(super) struct Wanted {
    /// Each with its place among the columns of the files, where it is there.
    columns: Vec<(Arc<Field>, Option<usize>)>,
    /// How many columns come from the files; those of folders are after them.
    in_files: usize,
}

/// What a projection of the table's columns wants of such files.
pub(super) fn wanted(table: &TableSchema, of_files: &TableSchema, projection: Option<&Vec<usize>>) -> Wanted {
    let fields = table.table_schema().fields();
    let column = |index: usize| {
        let field = Arc::clone(&fields[index]);
        let place = of_files.table_schema().index_of(field.name()).ok();
        (field, place)
    };
    let columns = match projection {
        Some(projection) => projection.iter().copied().filter(|index| *index < fields.len()).map(column).collect(),
        None => (0..fields.len()).map(column).collect(),
    };
    Wanted { columns, in_files: of_files.file_schema().fields().len() }
}

impl Wanted {
    /// The places of those that are there, in order of the table's.
    pub(super) fn indices(&self) -> Vec<usize> {
        self.columns.iter().filter_map(|(_, place)| *place).collect()
    }

    /// Gives the rows of a scan of these places the table's columns: NULL where the files have none, or one of these texts.
    pub(super) fn in_table(&self, scan: Arc<dyn ExecutionPlan>, nulls: &[String]) -> Result<Arc<dyn ExecutionPlan>> {
        if self.columns.is_empty() {
            return Ok(scan);
        }
        let found = scan.schema();
        let mut next = 0;
        let mut expressions = Vec::with_capacity(self.columns.len());
        for (field, place) in &self.columns {
            let expression: Arc<dyn PhysicalExpr> = match place {
                None => Arc::new(Literal::new(ScalarValue::try_new_null(field.data_type())?)),
                Some(place) => {
                    let of_file = found.field(next);
                    let mut column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(of_file.name(), next));
                    if !nulls.is_empty() && *place < self.in_files {
                        column = null_where(column, nulls, &found)?;
                    }
                    next += 1;
                    if of_file.data_type() == field.data_type() {
                        column
                    } else {
                        Arc::new(CastExpr::new(column, field.data_type().clone(), None))
                    }
                }
            };
            expressions.push((expression, field.name().clone()));
        }
        Ok(Arc::new(ProjectionExec::try_new(expressions, scan)?))
    }
}

/// The text of a column, but NULL where it is one of these.
fn null_where(column: Arc<dyn PhysicalExpr>, texts: &[String], schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let texts = texts.iter().map(|text| lit(text.as_str())).collect();
    let is_null = in_list(Arc::clone(&column), texts, &false, schema)?;
    case(None, vec![(is_null, Arc::new(Literal::new(ScalarValue::Utf8(None))))], Some(column))
}
