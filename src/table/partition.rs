//! Hive partition columns: from `key=value` folders to typed values, and which files a filter leaves. Pure.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::and;
use arrow::compute::kernels::cast_utils::Parser;
use arrow::datatypes::{DataType, Date32Type, Field, Fields, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use chrono::NaiveDateTime;
use datafusion::catalog::Session;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::datasource::listing::helpers::expr_applicable_for_cols;
use datafusion::error::Result;
use datafusion::logical_expr::Expr;

/// What Hive and Spark write for NULL.
const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The `key=value` segments of a folder: names and values, each percent-decoded once. Other segments are passed over.
pub(crate) fn parse_folder(folder: &str) -> (Vec<String>, Vec<Option<String>>) {
    let pairs = folder.split('/').filter_map(|segment| segment.split_once('='));
    pairs.map(|(name, value)| (decode(name), parse_value(value))).unzip()
}

/// A value as a folder spells it, percent-decoded once; `None` is NULL.
pub(crate) fn parse_value(value: &str) -> Option<String> {
    Some(value).filter(|value| *value != HIVE_NULL).map(decode)
}

/// Percent-decodes once; bytes that are not UTF-8 then leave the text as it is.
fn decode(text: &str) -> String {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    decoded.map_or_else(|_| text.to_owned(), |decoded| decoded.into_owned())
}

/// The column of that name for these values, as they are spelled; of the type that is declared for it, else
/// [of theirs](infer_type). Nullable, since a folder may stand for NULL.
pub(crate) fn column<'a>(
    name: &str,
    values: impl Iterator<Item = Option<&'a str>> + Clone,
    declared: Option<&Schema>,
) -> Field {
    let declared = declared.and_then(|schema| schema.field_with_name(name).ok());
    let data_type = declared.map_or_else(|| infer_type(values), |field| field.data_type().clone());
    Field::new(name, data_type, true)
}

/// The type of a partition column: a type other than text only where every value, rendered again, is itself, so that
/// no spelling is lost (`01` stays text). NULL fits any type.
fn infer_type<'a>(values: impl Iterator<Item = Option<&'a str>> + Clone) -> DataType {
    let mut typed = values.flatten().peekable();
    if typed.peek().is_none() {
        return DataType::Utf8View;
    }
    let types =
        [DataType::Int64, DataType::Date32, DataType::Boolean, DataType::Timestamp(TimeUnit::Microsecond, None)];
    let holds_all = |data_type: &DataType| typed.clone().all(|value| parse(value, data_type).is_some());
    types.into_iter().find(holds_all).unwrap_or(DataType::Utf8View)
}

/// A partition value in the type of its column; `None` where it is no such value.
pub(crate) fn to_scalar(value: Option<&str>, data_type: &DataType) -> Option<ScalarValue> {
    match value {
        None => ScalarValue::try_new_null(data_type).ok(),
        // A type that was declared takes other spellings, too.
        Some(value) => {
            parse(value, data_type).or_else(|| ScalarValue::try_from_string(value.to_owned(), data_type).ok())
        }
    }
}

/// A value that is spelled as it is rendered.
fn parse(value: &str, data_type: &DataType) -> Option<ScalarValue> {
    match data_type {
        DataType::Int64 => {
            let number = value.parse::<i64>().ok().filter(|number| number.to_string() == value)?;
            Some(ScalarValue::Int64(Some(number)))
        }
        DataType::Date32 => {
            let days = Date32Type::parse(value)?;
            let date = Date32Type::to_naive_date_opt(days).filter(|date| date.to_string() == value);
            date.map(|_| ScalarValue::Date32(Some(days)))
        }
        DataType::Boolean => value.parse().ok().map(|value| ScalarValue::Boolean(Some(value))),
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            let time = NaiveDateTime::parse_from_str(value, "%Y-%m-%d %H:%M:%S%.f").ok()?;
            // Chrono writes no trailing zeros but in groups of three digits.
            let micros = time.and_utc().timestamp_micros();
            (time.to_string() == value && time.and_utc().timestamp_subsec_nanos() % 1_000 == 0)
                .then_some(ScalarValue::TimestampMicrosecond(Some(micros), None))
        }
        DataType::Utf8View => Some(ScalarValue::Utf8View(Some(value.to_owned()))),
        _ => None,
    }
}

/// Whether a filter can be decided from partition columns alone.
pub(crate) fn is_decided(filter: &Expr, columns: &Fields) -> bool {
    let names: Vec<&str> = columns.iter().map(|field| field.name().as_str()).collect();
    !names.is_empty() && expr_applicable_for_cols(&names, filter)
}

/// Which of the files with these partition values pass all filters, each of which must be
/// [decided](is_decided) by partition columns. A filter is evaluated once for all files.
pub(crate) fn prune<'a>(
    state: &dyn Session,
    columns: &Fields,
    files: impl ExactSizeIterator<Item = &'a [ScalarValue]> + Clone,
    filters: &[&Expr],
) -> Result<Vec<bool>> {
    let count = files.len();
    if filters.is_empty() || count == 0 {
        return Ok(vec![true; count]);
    }
    let arrays = (0..columns.len())
        .map(|column| ScalarValue::iter_to_array(files.clone().map(|values| values[column].clone())))
        .collect::<Result<Vec<ArrayRef>>>()?;
    let schema = Arc::new(Schema::new(columns.clone()));
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
    let df_schema = DFSchema::try_from(schema)?;

    let mut kept = BooleanArray::from(vec![true; count]);
    for filter in filters {
        let expression = state.create_physical_expr((*filter).clone(), &df_schema)?;
        let passed = expression.evaluate(&batch)?.into_array(count)?;
        kept = and(&kept, passed.as_boolean())?;
    }
    // A filter that is NULL for a file passes none of its rows.
    Ok((0..count).map(|file| kept.is_valid(file) && kept.value(file)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn folders_are_parsed() {
        let (names, values) = parse_folder("year=2024/x/city=a%2Fb%20c/p=__HIVE_DEFAULT_PARTITION__/e=/q=a=b");
        assert_eq!(names, ["year", "city", "p", "e", "q"]);
        let values: Vec<Option<&str>> = values.iter().map(Option::as_deref).collect();
        assert_eq!(values, [Some("2024"), Some("a/b c"), None, Some(""), Some("a=b")]);
        assert_eq!(parse_folder("p=%252F").1, [Some("%2F".to_owned())], "decoded once");
    }

    fn micros() -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, None)
    }

    #[test]
    fn types_round_trip_or_are_text() {
        for (values, expected) in [
            (&[Some("1"), Some("-20")][..], DataType::Int64),
            (&[Some("1"), None], DataType::Int64),
            (&[Some("01"), Some("10")], DataType::Utf8View),
            (&[Some("+1")], DataType::Utf8View),
            (&[Some("9223372036854775808")], DataType::Utf8View),
            (&[Some("2024-02-29")], DataType::Date32),
            (&[Some("2024-02-29"), Some("2024-2-1")], DataType::Utf8View),
            (&[Some("2023-02-29")], DataType::Utf8View),
            (&[Some("1"), Some("a")], DataType::Utf8View),
            (&[Some("true"), Some("false"), None], DataType::Boolean),
            (&[Some("True")], DataType::Utf8View),
            (&[Some("2024-02-29 05:00:00"), Some("2024-02-29 05:00:00.123")], micros()),
            (&[Some("2024-02-29 05:00:00.120")], micros()),
            (&[Some("2024-02-29 05:00:00.12")], DataType::Utf8View),
            (&[Some("2017-06-30T05")], DataType::Utf8View),
            (&[Some("2024-02-29 25:00:00")], DataType::Utf8View),
            (&[None], DataType::Utf8View),
            (&[], DataType::Utf8View),
            (&[Some("")], DataType::Utf8View),
        ] {
            let inferred = infer_type(values.iter().copied());
            assert_eq!(inferred, expected, "{values:?}");
            for value in values.iter().flatten() {
                assert!(parse(value, &inferred).is_some(), "{value}");
            }
        }
        assert!(to_scalar(None, &DataType::Int64).unwrap().is_null());
        assert_eq!(to_scalar(Some("01"), &DataType::Int8), Some(ScalarValue::Int8(Some(1))), "declared");
        assert_eq!(to_scalar(Some("x"), &DataType::Int8), None);
    }

    /// As a folder spells it.
    fn rendered(value: &ScalarValue) -> String {
        match value {
            ScalarValue::Date32(Some(days)) => Date32Type::to_naive_date_opt(*days).unwrap().to_string(),
            ScalarValue::TimestampMicrosecond(Some(micros), None) => {
                chrono::DateTime::from_timestamp_micros(*micros).unwrap().naive_utc().to_string()
            }
            value => value.to_string(),
        }
    }

    proptest! {
        #[test]
        fn a_value_that_is_typed_and_rendered_is_itself(
            values in prop::collection::vec(
                prop_oneof![
                    "[-+]?[0-9]{1,20}",
                    "[0-9]{4}-[0-9]{2}-[0-9]{2}",
                    "[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,9})?",
                    "(true|false|True|1)",
                    any::<String>(),
                ],
                1..3,
            )
        ) {
            let data_type = infer_type(values.iter().map(|value| Some(value.as_str())));
            for value in &values {
                let typed = to_scalar(Some(value), &data_type).unwrap();
                prop_assert_eq!(typed.data_type(), data_type.clone());
                prop_assert_eq!(&rendered(&typed), value);
            }
        }

        #[test]
        fn folders_are_parsed_whatever_they_are(folder in any::<String>()) {
            let (names, values) = parse_folder(&folder);
            prop_assert_eq!(names.len(), values.len());
        }
    }
}
