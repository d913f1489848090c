//! Whether a scan of Parquet files decodes late: the columns of a filter first, and of the others only what passes it.
//!
//! DataFusion leaves that off, since it costs a second read for each row group and slower decoding where many rows pass.
//! It pays where few rows can pass and the other columns are large.

use std::collections::HashSet;

use datafusion::logical_expr::{Expr, Operator};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};

/// Bytes of other columns in a row group that take longer to arrive than the second read, and to decode.
const LARGE: u64 = 2 * 1024 * 1024;

/// Bytes that a value takes in a file, at least, where a column has thousands of different ones: a dictionary of 4,096
/// has indexes of 12 bits.
const DISTINCT: f64 = 1.5;

/// Whether late decoding pays for this filter on files like those of these footers; `wanted` are the columns that are
/// read, `None` for all.
pub(crate) fn pays(filters: &[Expr], wanted: Option<&HashSet<String>>, footers: &[&ParquetMetaData]) -> bool {
    let filtered: HashSet<&str> =
        filters.iter().flat_map(Expr::column_refs).map(|column| column.name.as_str()).collect();
    let (mut row_groups, mut other_bytes) = (0_u64, 0_u64);
    for row_group in footers.iter().flat_map(|footer| footer.row_groups()) {
        row_groups += 1;
        for column in row_group.columns() {
            let Some(root) = column.column_path().parts().first() else { continue };
            if !filtered.contains(root.as_str()) && wanted.is_none_or(|wanted| wanted.contains(root)) {
                other_bytes += bytes(column);
            }
        }
    }
    row_groups > 0 && other_bytes / row_groups >= LARGE && filters.iter().any(|filter| is_selective(filter, footers))
}

/// Whether a filter leaves few values of a column that has very many.
fn is_selective(filter: &Expr, footers: &[&ParquetMetaData]) -> bool {
    let column = match filter {
        // A short list, as the optimizer writes it.
        Expr::BinaryExpr(binary) if binary.op == Operator::Or => {
            return is_selective(&binary.left, footers) && is_selective(&binary.right, footers);
        }
        Expr::BinaryExpr(binary) if binary.op == Operator::Eq => match (&*binary.left, &*binary.right) {
            (Expr::Column(column), Expr::Literal(..)) | (Expr::Literal(..), Expr::Column(column)) => column,
            _ => return false,
        },
        Expr::InList(list) if !list.negated => match &*list.expr {
            Expr::Column(column) => column,
            _ => return false,
        },
        _ => return false,
    };
    let (mut size, mut values) = (0_u64, 0_i64);
    for row_group in footers.iter().flat_map(|footer| footer.row_groups()) {
        for chunk in row_group.columns().iter().filter(|chunk| chunk.column_path().parts() == [column.name.as_str()]) {
            size += bytes(chunk);
            values += chunk.num_values();
        }
    }
    values > 0 && size as f64 / values as f64 >= DISTINCT
}

fn bytes(column: &ColumnChunkMetaData) -> u64 {
    u64::try_from(column.compressed_size()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use datafusion::prelude::{col, lit};
    use parquet::arrow::ArrowWriter;

    use super::*;

    /// A footer of 400,000 rows: `id` is different in each, `kind` is one of four, `text` takes 8 bytes each.
    fn footer() -> ParquetMetaData {
        let mixed = |n: i64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64);
        let column = |value: fn(i64, i64) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values((0..400_000).map(|n| value(n, mixed(n)))))
        };
        let columns = [("id", column(|_, m| m)), ("kind", column(|n, _| n % 4)), ("text", column(|_, m| !m))];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap()
    }

    #[test]
    fn late_decoding_pays_where_few_rows_pass_and_the_rest_is_large() {
        let footer = footer();
        let columns = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<HashSet<_>>());
        for (filter, wanted, expected) in [
            (col("id").eq(lit(7_i64)), None, true),
            (lit(7_i64).eq(col("id")), columns(&["id", "text"]), true),
            (col("id").in_list(vec![lit(7_i64), lit(8_i64)], false), None, true),
            (col("id").in_list(vec![lit(7_i64)], true), None, false),
            (col("id").eq(lit(7_i64)).or(col("id").eq(lit(8_i64))), None, true),
            (col("id").eq(lit(7_i64)).or(col("kind").eq(lit(1_i64))), None, false),
            (col("id").gt(lit(7_i64)), None, false),
            (col("kind").eq(lit(1_i64)), None, false),
            (col("id").eq(lit(7_i64)), columns(&["id", "kind"]), false),
            (col("absent").eq(lit(7_i64)), None, false),
        ] {
            assert_eq!(
                pays(std::slice::from_ref(&filter), wanted.as_ref(), &[&footer]),
                expected,
                "{filter}, {wanted:?}"
            );
        }
        assert!(pays(&[col("kind").eq(lit(1_i64)), col("id").eq(lit(7_i64))], None, &[&footer]));
        assert!(!pays(&[col("id").eq(lit(7_i64))], None, &[]));
    }
}
