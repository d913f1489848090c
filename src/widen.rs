//! Widening: the type that holds every value of two types, without loss. Pure.
//!
//! The types form a lattice with "no such type" on top, so that the result does not depend on the order of the files:
//! `widen` is commutative and associative (up to the order of a struct's fields). The rules:
//!
//! - Integers of one signedness widen to the larger; of both, to a signed one that holds both, and `UInt64` with a signed
//!   one to `Decimal128(20, 0)`.
//! - Floats widen to the larger. Integers of 8 and 16 bits fit `Float32`, others `Float64`: of `Int64` only values up to
//!   2^53 do, which [`fits`] makes the reader check. `UInt64` does not widen to a float.
//! - Decimals widen to the digits of both before and after the point; with an integer, to at least 20 before it.
//! - `Date32`, then `Date64`, then timestamps without zone; timestamps, times and durations widen to the finer unit. Two
//!   zones become `UTC`: the instants are the same. A timestamp without a zone is none.
//! - The kinds of text widen to `Utf8View`, those of bytes to `BinaryView`; a dictionary widens as its values.
//! - Structs widen by the names of their fields, lists and maps by their elements. A field that one lacks is nullable.
//! - `Null` widens to anything.

use std::cmp::max;
use std::sync::Arc;

use arrow::datatypes::{
    DECIMAL32_MAX_PRECISION, DECIMAL64_MAX_PRECISION, DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType,
    Field, FieldRef, Fields, TimeUnit,
};

/// The largest integer up to which `Float64` holds every one.
pub(crate) const EXACT_IN_FLOAT64: i64 = 1 << 53;

/// Digits before the point of any integer, in decimals.
const INTEGER_DIGITS: i16 = 20;

/// The type that holds the values of both; `None` where there is none.
pub(crate) fn widen(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::*;
    if a == b {
        return Some(a.clone());
    }
    Some(match (a, b) {
        (Null, other) | (other, Null) => other.clone(),
        (Dictionary(..) | RunEndEncoded(..), _) | (_, Dictionary(..) | RunEndEncoded(..)) => {
            widen(values_of(a), values_of(b))?
        }
        (Date32, Date64) | (Date64, Date32) => Date64,
        (Date32, Timestamp(unit, None)) | (Timestamp(unit, None), Date32) => Timestamp(*unit, None),
        (Date64, Timestamp(unit, None)) | (Timestamp(unit, None), Date64) => {
            Timestamp(finer(*unit, TimeUnit::Millisecond), None)
        }
        (Timestamp(a, None), Timestamp(b, None)) => Timestamp(finer(*a, *b), None),
        (Timestamp(a, Some(first)), Timestamp(b, Some(second))) => {
            let zone = if first == second { Arc::clone(first) } else { "UTC".into() };
            Timestamp(finer(*a, *b), Some(zone))
        }
        (Time32(a) | Time64(a), Time32(b) | Time64(b)) => match finer(*a, *b) {
            unit @ (TimeUnit::Second | TimeUnit::Millisecond) => Time32(unit),
            unit => Time64(unit),
        },
        (Duration(a), Duration(b)) => Duration(finer(*a, *b)),
        (Struct(a), Struct(b)) => Struct(widen_fields(a, b)?),
        (Map(a, a_sorted), Map(b, b_sorted)) => Map(widen_entries(a, b)?, *a_sorted && *b_sorted),
        _ if is_text(a) && is_text(b) => Utf8View,
        _ if is_bytes(a) && is_bytes(b) => BinaryView,
        _ => match (list_of(a), list_of(b)) {
            (Some((a, a_is_large)), Some((b, b_is_large))) => {
                let element = widen_element(a, b)?;
                if a_is_large || b_is_large { LargeList(element) } else { List(element) }
            }
            _ => widen_numbers(a, b)?,
        },
    })
}

/// Whether `narrow` holds no value that `wide` does not, however each of them encodes it; of a column of a file and of its
/// table.
pub(crate) fn is_wider(wide: &DataType, narrow: &DataType) -> bool {
    let wide = plain(wide);
    widen(&wide, narrow).is_some_and(|both| plain(&both).equals_datatype(&wide))
}

/// One type for all that hold the same values.
fn plain(data_type: &DataType) -> DataType {
    use DataType::*;
    let field = |field: &FieldRef| {
        let data_type = plain(field.data_type());
        Arc::new(Field::new(field.name(), data_type, true))
    };
    match values_of(data_type) {
        Utf8 | LargeUtf8 => Utf8View,
        Binary | LargeBinary => BinaryView,
        List(element) | ListView(element) | LargeList(element) | LargeListView(element) => LargeList(field(element)),
        Struct(fields) => Struct(fields.iter().map(field).collect()),
        Map(entries, is_sorted) => Map(field(entries), *is_sorted),
        other => other.clone(),
    }
}

fn widen_numbers(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::*;
    if let (Some(a), Some(b)) = (Integer::of(a), Integer::of(b)) {
        return Some(a.widen(b));
    }
    if let (Some(a), Some(b)) = (float_bits(a), float_bits(b)) {
        return Some(float(max(a, b)));
    }
    let (integer, other) = match (Integer::of(a), Integer::of(b)) {
        (Some(integer), None) => (Some(integer), b),
        (None, Some(integer)) => (Some(integer), a),
        _ => (None, a),
    };
    match integer {
        Some(Integer { bits: 64, is_signed: false }) if float_bits(other).is_some() => None,
        Some(integer) if float_bits(other).is_some() => {
            // `Int8` and `UInt8` together are an `Int16`: what they widen to must be the same.
            let is_small = integer.bits == 8 || (integer.bits == 16 && integer.is_signed);
            Some(if is_small && *other != Float64 { Float32 } else { Float64 })
        }
        Some(_) => {
            let other = Decimal::of(other)?;
            Decimal { before: max(other.before, INTEGER_DIGITS), ..other }.to_type()
        }
        None => Decimal::of(a)?.widen(Decimal::of(b)?).to_type(),
    }
}

#[derive(Clone, Copy, PartialEq)]
struct Integer {
    bits: u8,
    is_signed: bool,
}

impl Integer {
    fn of(data_type: &DataType) -> Option<Self> {
        let (bits, is_signed) = match data_type {
            DataType::Int8 => (8, true),
            DataType::Int16 => (16, true),
            DataType::Int32 => (32, true),
            DataType::Int64 => (64, true),
            DataType::UInt8 => (8, false),
            DataType::UInt16 => (16, false),
            DataType::UInt32 => (32, false),
            DataType::UInt64 => (64, false),
            _ => return None,
        };
        Some(Self { bits, is_signed })
    }

    fn widen(self, other: Self) -> DataType {
        if self.is_signed == other.is_signed {
            return Self { bits: max(self.bits, other.bits), ..self }.to_type();
        }
        let (signed, unsigned) = if self.is_signed { (self, other) } else { (other, self) };
        if unsigned.bits == 64 {
            return DataType::Decimal128(INTEGER_DIGITS as u8, 0);
        }
        Self { bits: max(signed.bits, 2 * unsigned.bits), is_signed: true }.to_type()
    }

    fn to_type(self) -> DataType {
        match (self.bits, self.is_signed) {
            (8, true) => DataType::Int8,
            (16, true) => DataType::Int16,
            (32, true) => DataType::Int32,
            (8, false) => DataType::UInt8,
            (16, false) => DataType::UInt16,
            (32, false) => DataType::UInt32,
            (_, false) => DataType::UInt64,
            (_, true) => DataType::Int64,
        }
    }
}

fn float_bits(data_type: &DataType) -> Option<u8> {
    match data_type {
        DataType::Float16 => Some(16),
        DataType::Float32 => Some(32),
        DataType::Float64 => Some(64),
        _ => None,
    }
}

fn float(bits: u8) -> DataType {
    match bits {
        16 => DataType::Float16,
        32 => DataType::Float32,
        _ => DataType::Float64,
    }
}

/// A decimal by its digits before and after the point, of a type with so many bits or more.
#[derive(Clone, Copy)]
struct Decimal {
    before: i16,
    after: i16,
    bits: u16,
}

impl Decimal {
    fn of(data_type: &DataType) -> Option<Self> {
        let (precision, scale, bits) = match data_type {
            DataType::Decimal32(precision, scale) => (*precision, *scale, 32),
            DataType::Decimal64(precision, scale) => (*precision, *scale, 64),
            DataType::Decimal128(precision, scale) => (*precision, *scale, 128),
            DataType::Decimal256(precision, scale) => (*precision, *scale, 256),
            _ => return None,
        };
        Some(Self { before: i16::from(precision) - i16::from(scale), after: scale.into(), bits })
    }

    fn widen(self, other: Self) -> Self {
        Self {
            before: max(self.before, other.before),
            after: max(self.after, other.after),
            bits: max(self.bits, other.bits),
        }
    }

    fn to_type(self) -> Option<DataType> {
        let precision = u8::try_from(max(self.before + self.after, 1)).ok()?;
        let scale = i8::try_from(self.after).ok()?;
        Some(match self.bits {
            32 if precision <= DECIMAL32_MAX_PRECISION => DataType::Decimal32(precision, scale),
            32 | 64 if precision <= DECIMAL64_MAX_PRECISION => DataType::Decimal64(precision, scale),
            32 | 64 | 128 if precision <= DECIMAL128_MAX_PRECISION => DataType::Decimal128(precision, scale),
            _ if precision <= DECIMAL256_MAX_PRECISION => DataType::Decimal256(precision, scale),
            _ => return None,
        })
    }
}

fn finer(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    let rank = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    };
    std::cmp::max_by_key(a, b, rank)
}

/// The type of the values, however they are encoded.
fn values_of(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => values_of(values),
        DataType::RunEndEncoded(_, values) => values_of(values.data_type()),
        other => other,
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_bytes(data_type: &DataType) -> bool {
    use DataType::*;
    matches!(data_type, Binary | LargeBinary | BinaryView | FixedSizeBinary(_))
}

/// The element of a list, and whether the list is a large one.
fn list_of(data_type: &DataType) -> Option<(&FieldRef, bool)> {
    match data_type {
        DataType::List(element) | DataType::ListView(element) | DataType::FixedSizeList(element, _) => {
            Some((element, false))
        }
        DataType::LargeList(element) | DataType::LargeListView(element) => Some((element, true)),
        _ => None,
    }
}

/// Writers name the element of a list differently.
fn widen_element(a: &Field, b: &Field) -> Option<FieldRef> {
    let name = if a.name() == b.name() { a.name() } else { Field::LIST_FIELD_DEFAULT_NAME };
    widen_field(name, a, b)
}

fn widen_field(name: &str, a: &Field, b: &Field) -> Option<FieldRef> {
    let data_type = widen(a.data_type(), b.data_type())?;
    Some(Arc::new(Field::new(name, data_type, a.is_nullable() || b.is_nullable())))
}

fn widen_fields(a: &Fields, b: &Fields) -> Option<Fields> {
    let mut fields: Vec<FieldRef> = Vec::with_capacity(a.len());
    for field in a {
        fields.push(match b.find(field.name()) {
            Some((_, other)) => widen_field(field.name(), field, other)?,
            None => Arc::new(field.as_ref().clone().with_nullable(true)),
        });
    }
    let added = b.iter().filter(|field| a.find(field.name()).is_none());
    fields.extend(added.map(|field| Arc::new(field.as_ref().clone().with_nullable(true))));
    Some(fields.into())
}

/// The entries of a map are a struct of key and value, whatever their names.
fn widen_entries(a: &Field, b: &Field) -> Option<FieldRef> {
    let (DataType::Struct(first), DataType::Struct(second)) = (a.data_type(), b.data_type()) else { return None };
    let ([key, value], [other_key, other_value]) = (&first[..], &second[..]) else { return None };
    let fields = [widen_field("key", key, other_key)?, widen_field("value", value, other_value)?];
    Some(Arc::new(Field::new("entries", DataType::Struct(fields.into_iter().collect()), false)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs() {
        use DataType::*;
        let list = |data_type| DataType::new_list(data_type, true);
        let zoned = |unit, zone: &str| Timestamp(unit, Some(zone.into()));
        let dictionary = |values| Dictionary(Box::new(Int32), Box::new(values));
        let (seconds, millis, nanos) = (TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Nanosecond);
        for (a, b, expected) in [
            (Int32, Int64, Some(Int64)),
            (UInt8, Int8, Some(Int16)),
            (UInt32, Int8, Some(Int64)),
            (UInt64, Int64, Some(Decimal128(20, 0))),
            (Float32, Float64, Some(Float64)),
            (Int16, Float32, Some(Float32)),
            (Int32, Float32, Some(Float64)),
            (Int64, Float64, Some(Float64)),
            (UInt64, Float64, None),
            (Decimal128(5, 2), Decimal128(7, 4), Some(Decimal128(7, 4))),
            (Decimal128(38, 0), Decimal128(38, 10), Some(Decimal256(48, 10))),
            (Decimal256(76, 0), Decimal256(76, 1), None),
            (Decimal32(9, 2), Decimal64(9, 4), Some(Decimal64(11, 4))),
            (Int32, Decimal128(5, 2), Some(Decimal128(22, 2))),
            (Float64, Decimal128(5, 2), None),
            (Date32, Timestamp(millis, None), Some(Timestamp(millis, None))),
            (Date64, Timestamp(seconds, None), Some(Timestamp(millis, None))),
            (Timestamp(millis, None), Timestamp(nanos, None), Some(Timestamp(nanos, None))),
            (zoned(millis, "UTC"), zoned(nanos, "+02:00"), Some(zoned(nanos, "UTC"))),
            (zoned(millis, "+02:00"), zoned(nanos, "+02:00"), Some(zoned(nanos, "+02:00"))),
            (zoned(millis, "UTC"), Timestamp(millis, None), None),
            (Time32(seconds), Time64(nanos), Some(Time64(nanos))),
            (Time32(seconds), Time32(millis), Some(Time32(millis))),
            (Utf8, LargeUtf8, Some(Utf8View)),
            (FixedSizeBinary(2), FixedSizeBinary(3), Some(BinaryView)),
            (Utf8, Binary, None),
            (dictionary(Utf8), Utf8View, Some(Utf8View)),
            (dictionary(Int8), Int32, Some(Int32)),
            (Null, Boolean, Some(Boolean)),
            (Boolean, Int8, None),
            (Int64, Utf8, None),
            (list(Int32), DataType::new_large_list(Int64, true), Some(DataType::new_large_list(Int64, true))),
            (list(Int32), Int32, None),
        ] {
            assert_eq!(widen(&a, &b), expected, "{a} {b}");
            assert_eq!(widen(&b, &a), expected, "{b} {a}");
        }
    }

    #[test]
    fn encodings_do_not_matter() {
        use DataType::*;
        let list = |data_type| DataType::new_list(data_type, false);
        for (wide, narrow, expected) in [
            (Utf8, LargeUtf8, true),
            (Binary, FixedSizeBinary(3), true),
            (FixedSizeBinary(3), Binary, false),
            (list(Utf8), DataType::new_large_list(Utf8View, true), true),
            (list(Int32), list(Int64), false),
            (Dictionary(Box::new(Int8), Box::new(Utf8)), Utf8View, true),
            (Int64, Int32, true),
            (Int32, Int64, false),
            (Int64, Null, true),
        ] {
            assert_eq!(is_wider(&wide, &narrow), expected, "{wide} {narrow}");
        }
    }

    #[test]
    fn structs_widen_by_name() {
        let field = |name: &str, data_type| Field::new(name, data_type, false);
        let a = DataType::Struct(vec![field("x", DataType::Int32), field("y", DataType::Int32)].into());
        let b = DataType::Struct(vec![field("z", DataType::Utf8), field("x", DataType::Int64)].into());
        let expected = vec![
            field("x", DataType::Int64),
            field("y", DataType::Int32).with_nullable(true),
            field("z", DataType::Utf8).with_nullable(true),
        ];
        assert_eq!(widen(&a, &b), Some(DataType::Struct(expected.into())));
    }

    /// Types of up to two levels.
    fn types() -> impl Strategy<Value = DataType> {
        use DataType::*;
        let units = prop_oneof![
            Just(TimeUnit::Second),
            Just(TimeUnit::Millisecond),
            Just(TimeUnit::Microsecond),
            Just(TimeUnit::Nanosecond)
        ];
        let numbers = prop_oneof![
            Just(Int8),
            Just(Int16),
            Just(Int32),
            Just(Int64),
            Just(UInt8),
            Just(UInt16),
            Just(UInt32),
            Just(UInt64),
            Just(Float16),
            Just(Float32),
            Just(Float64),
            (1u8..=38, 0i8..=10).prop_map(|(precision, scale)| Decimal128(precision.max(scale as u8), scale)),
            (1u8..=9, 0i8..=9).prop_map(|(precision, scale)| Decimal32(precision.max(scale as u8), scale)),
        ];
        let times = (units, 0..7).prop_map(|(unit, kind)| match kind {
            0 => Timestamp(unit, None),
            1 => Timestamp(unit, Some("UTC".into())),
            2 => Timestamp(unit, Some("+02:00".into())),
            3 => Duration(unit),
            4 => Date32,
            5 => Date64,
            _ if matches!(unit, TimeUnit::Second | TimeUnit::Millisecond) => Time32(unit),
            _ => Time64(unit),
        });
        let others = prop_oneof![
            Just(Null),
            Just(Boolean),
            Just(Utf8),
            Just(LargeUtf8),
            Just(Utf8View),
            Just(Binary),
            Just(FixedSizeBinary(3)),
            Just(FixedSizeBinary(4)),
        ];
        let leaves = prop_oneof![4 => numbers, 2 => times, 2 => others];
        leaves.prop_recursive(2, 8, 3, |inner| {
            let fields = prop::collection::btree_map("[a-c]", (inner.clone(), any::<bool>()), 1..3);
            prop_oneof![
                inner.clone().prop_map(|data_type| DataType::new_list(data_type, true)),
                inner.clone().prop_map(|data_type| DataType::new_large_list(data_type, false)),
                inner.prop_map(|data_type| Dictionary(Box::new(Int32), Box::new(data_type))),
                fields.prop_map(|fields| {
                    let fields =
                        fields.into_iter().map(|(name, (data_type, nullable))| Field::new(name, data_type, nullable));
                    Struct(fields.collect())
                }),
            ]
        })
    }

    /// With the fields of structs in order of their names.
    fn sorted(data_type: Option<DataType>) -> Option<DataType> {
        let field = |field: &FieldRef| {
            let data_type = sorted(Some(field.data_type().clone())).unwrap();
            Arc::new(field.as_ref().clone().with_data_type(data_type))
        };
        data_type.map(|data_type| match &data_type {
            DataType::Struct(fields) => {
                let mut fields: Vec<FieldRef> = fields.iter().map(field).collect();
                fields.sort_by(|a, b| a.name().cmp(b.name()));
                DataType::Struct(fields.into())
            }
            DataType::List(element) => DataType::List(field(element)),
            DataType::LargeList(element) => DataType::LargeList(field(element)),
            DataType::Dictionary(keys, values) => {
                DataType::Dictionary(keys.clone(), Box::new(sorted(Some(values.as_ref().clone())).unwrap()))
            }
            _ => data_type,
        })
    }

    proptest! {
        #[test]
        fn widening_is_commutative_and_idempotent(a in types(), b in types()) {
            prop_assert_eq!(sorted(widen(&a, &b)), sorted(widen(&b, &a)));
            prop_assert_eq!(widen(&a, &a), Some(a.clone()));
            if let Some(both) = widen(&a, &b) {
                prop_assert!(is_wider(&both, &a) && is_wider(&both, &b), "{} {} {}", a, b, both);
            }
        }

        #[test]
        fn widening_is_associative(a in types(), b in types(), c in types()) {
            let left = widen(&a, &b).and_then(|both| widen(&both, &c));
            let right = widen(&b, &c).and_then(|both| widen(&a, &both));
            prop_assert_eq!(sorted(left), sorted(right), "{} {} {}", a, b, c);
        }
    }
}
