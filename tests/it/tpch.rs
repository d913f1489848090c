//! TPC-H at scale factor 0.1: what lies in a bucket gives the same rows as the same batches in memory.

use std::sync::Arc;

use arrow::array::RecordBatchReader;
use arrow::csv::WriterBuilder;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_s3_testbed::Testbed;
use parquet::arrow::ArrowWriter;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow, SupplierArrow,
};

use crate::harness::{connector, query};

const SCALE_FACTOR: f64 = 0.1;

/// Files of the tables that are folders.
const PARTS: i32 = 8;

macro_rules! queries {
    ($($name:literal),*) => { [$(($name, include_str!(concat!("tpch/", $name, ".sql")))),*] };
}

const QUERIES: [(&str, &str); 22] = queries![
    "q01", "q02", "q03", "q04", "q05", "q06", "q07", "q08", "q09", "q10", "q11", "q12", "q13", "q14", "q15", "q16",
    "q17", "q18", "q19", "q20", "q21", "q22"
];

#[tokio::test(flavor = "multi_thread")]
async fn all_queries_give_the_rows_that_memory_gives() {
    let testbed = Testbed::start().await.unwrap();
    let memory = SessionContext::new();
    load(&testbed, &memory).await;
    let s3 = connector(&testbed).with_root("s3://testbed/tpch").build().unwrap();
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_default_catalog_and_schema("datafusion", "s3"));
    s3.register(&ctx, "s3").await.unwrap();
    let tables = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"];
    assert_eq!(s3.table_names().await.unwrap(), tables);
    assert_eq!(s3.table("lineitem").await.unwrap().file_count(), PARTS as usize);

    for (name, sql) in QUERIES {
        let expected = sorted_rows(&query(&memory, sql).await.unwrap_or_else(|error| panic!("{name}: {error}")));
        let found = sorted_rows(&query(&ctx, sql).await.unwrap_or_else(|error| panic!("{name}: {error}")));
        assert!(!expected.is_empty(), "{name} has rows at this scale factor");
        assert_eq!(found.len(), expected.len(), "{name}: number of rows");
        for (found, expected) in found.iter().zip(&expected) {
            let is_same = found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| a.is_same(b));
            assert!(is_same, "{name}: {found:?} instead of {expected:?}");
        }
    }
    for record in testbed.log() {
        assert!(record.status == 200 || record.status == 206, "{record:?}");
    }
}

/// Generates all tables: into the bucket, and the same batches into memory.
async fn load(testbed: &Testbed, memory: &SessionContext) {
    for part in 1..=PARTS {
        let orders = batches(OrderArrow::new(OrderGenerator::new(SCALE_FACTOR, part, PARTS)));
        let items = batches(LineItemArrow::new(LineItemGenerator::new(SCALE_FACTOR, part, PARTS)));
        for (table, (schema, batches)) in [("orders", orders), ("lineitem", items)] {
            let key = format!("tpch/{table}/part-{part}.parquet");
            testbed.put("testbed", &key, parquet(&schema, &batches)).await.unwrap();
            append(memory, table, schema, batches).await;
        }
    }
    for (table, (schema, batches)) in [
        ("customer", batches(CustomerArrow::new(CustomerGenerator::new(SCALE_FACTOR, 1, 1)))),
        ("part", batches(PartArrow::new(PartGenerator::new(SCALE_FACTOR, 1, 1)))),
        ("partsupp", batches(PartSuppArrow::new(PartSuppGenerator::new(SCALE_FACTOR, 1, 1)))),
        ("region", batches(RegionArrow::new(RegionGenerator::new(SCALE_FACTOR, 1, 1)))),
        ("supplier", batches(SupplierArrow::new(SupplierGenerator::new(SCALE_FACTOR, 1, 1)))),
    ] {
        testbed.put("testbed", &format!("tpch/{table}.parquet"), parquet(&schema, &batches)).await.unwrap();
        append(memory, table, schema, batches).await;
    }
    // Keys and texts only: CSV does not say that a column is a decimal.
    let (schema, batches) = batches(NationArrow::new(NationGenerator::new(SCALE_FACTOR, 1, 1)));
    testbed.put("testbed", "tpch/nation.csv", csv(&batches)).await.unwrap();
    append(memory, "nation", schema, batches).await;
}

fn batches(generator: impl RecordBatchReader) -> (SchemaRef, Vec<RecordBatch>) {
    let schema = generator.schema();
    (schema, generator.map(|batch| batch.unwrap()).collect())
}

fn parquet(schema: &SchemaRef, batches: &[RecordBatch]) -> Bytes {
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), None).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.into_inner().unwrap().into()
}

fn csv(batches: &[RecordBatch]) -> Bytes {
    let mut file = Vec::new();
    let mut writer = WriterBuilder::new().with_header(true).build(&mut file);
    for batch in batches {
        writer.write(batch).unwrap();
    }
    drop(writer);
    file.into()
}

/// Adds a partition to a table in memory.
async fn append(memory: &SessionContext, table: &str, schema: SchemaRef, batches: Vec<RecordBatch>) {
    let mut partitions = vec![batches];
    if let Some(old) = memory.deregister_table(table).unwrap() {
        let old = old.downcast_ref::<MemTable>().unwrap();
        for batches in &old.batches {
            partitions.push(batches.read().await.clone());
        }
    }
    memory.register_table(table, Arc::new(MemTable::try_new(schema, partitions).unwrap())).unwrap();
}

/// A value as text, and as a number where it is a float.
#[derive(Debug)]
struct Value {
    text: String,
    float: Option<f64>,
}

impl Value {
    /// Sums of floats depend on the order of their terms; everything else is exact.
    fn is_same(&self, other: &Self) -> bool {
        match (self.float, other.float) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
            (None, None) => self.text == other.text,
            _ => false,
        }
    }
}

/// Rows in the order of their exact values, then of their floats as numbers.
fn sorted_rows(batches: &[RecordBatch]) -> Vec<Vec<Value>> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let value = |(column, array): (&ArrayFormatter<'_>, &arrow::array::ArrayRef)| {
                let text = column.value(row).to_string();
                let is_float = array.data_type() == &DataType::Float64;
                let float = is_float.then(|| text.parse().ok()).flatten();
                Value { text, float }
            };
            rows.push(columns.iter().zip(batch.columns()).map(value).collect::<Vec<_>>());
        }
    }
    rows.sort_by(|a, b| {
        let exact = |row: &[Value]| {
            row.iter().map(|v| if v.float.is_none() { v.text.clone() } else { String::new() }).collect::<Vec<_>>()
        };
        let floats = |row: &[Value]| row.iter().filter_map(|v| v.float).collect::<Vec<_>>();
        exact(a).cmp(&exact(b)).then_with(|| floats(a).partial_cmp(&floats(b)).unwrap())
    });
    rows
}
