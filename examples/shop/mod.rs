//! A small shop in a bucket, as jobs and people leave it: one table a file, one in partitions, and strays among them.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion_s3_testbed::Testbed;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;

/// The bucket that the shop lies in.
pub(crate) const BUCKET: &str = "lake";

const ARTICLES: [(&str, &str, f64); 12] = [
    ("espresso cup", "kitchen", 7.5),
    ("teapot", "kitchen", 24.0),
    ("bread knife", "kitchen", 18.9),
    ("cast iron pan", "kitchen", 49.0),
    ("desk lamp", "office", 35.0),
    ("notebook", "office", 3.2),
    ("fountain pen", "office", 28.0),
    ("paper clips", "office", 1.1),
    ("watering can", "garden", 14.5),
    ("secateurs", "garden", 22.0),
    ("bulb planter", "garden", 9.9),
    ("garden twine", "garden", 2.4),
];

const CUSTOMERS: &str = "\
id,name,city
1,Ada,Bern
2,Ben,Oslo
3,Cleo,Porto
4,Dov,\"Bern, Liebefeld\"
";

const USERS: &str = r#"{"id":1,"customer":1,"mail":"ada@example.com","roles":["admin","buyer"]}
{"id":2,"customer":2,"mail":"ben@example.com","roles":["buyer"]}
{"id":3,"customer":4,"mail":null,"roles":[]}
"#;

/// What Spark, Hadoop and people leave beside data: nothing of it is a table or a row.
const STRAYS: [(&str, &str); 8] = [
    ("shop/_SUCCESS", ""),
    ("shop/.articles.parquet.crc", "crc"),
    ("shop/README.md", "# The shop\n"),
    ("shop/transactions_$folder$", ""),
    ("shop/transactions/_SUCCESS", ""),
    ("shop/transactions/_temporary/0/part-0.parquet", "half written"),
    ("shop/transactions/year=2025/_committed_1", "{}"),
    ("shop/transactions/year=2025/month=1/empty.parquet", ""),
];

/// Writes the shop into the testbed's bucket, under `shop/`.
pub(crate) async fn write(testbed: &Testbed) -> Result<(), Box<dyn std::error::Error>> {
    testbed.put(BUCKET, "shop/articles.parquet", parquet(&articles()?)?).await?;
    testbed.put(BUCKET, "shop/customers.csv", CUSTOMERS).await?;
    testbed.put(BUCKET, "shop/users.json", USERS).await?;
    for year in [2024, 2025] {
        for month in 1..=12 {
            let key = format!("shop/transactions/year={year}/month={month}/part-0.snappy.parquet");
            testbed.put(BUCKET, &key, parquet(&transactions(year, month)?)?).await?;
        }
    }
    for (key, body) in STRAYS {
        testbed.put(BUCKET, key, body).await?;
    }
    Ok(())
}

fn articles() -> Result<RecordBatch, ArrowError> {
    let columns: [(&str, ArrayRef); 4] = [
        ("id", Arc::new(Int64Array::from_iter_values(1..=ARTICLES.len() as i64))),
        ("name", Arc::new(StringArray::from_iter_values(ARTICLES.iter().map(|article| article.0)))),
        ("category", Arc::new(StringArray::from_iter_values(ARTICLES.iter().map(|article| article.1)))),
        ("price", Arc::new(Float64Array::from_iter_values(ARTICLES.iter().map(|article| article.2)))),
    ];
    RecordBatch::try_from_iter(columns)
}

/// Forty sales in a month, the same in every run.
fn transactions(year: i64, month: i64) -> Result<RecordBatch, ArrowError> {
    let ids = (0..40).map(|sale| (year * 100 + month) * 100 + sale);
    let pick = |id: i64, choices: i64| (id * 7919).rem_euclid(104_729) % choices + 1;
    let columns: [(&str, ArrayRef); 4] = [
        ("id", Arc::new(Int64Array::from_iter_values(ids.clone()))),
        ("customer", Arc::new(Int64Array::from_iter_values(ids.clone().map(|id| pick(id, 4))))),
        ("article", Arc::new(Int64Array::from_iter_values(ids.clone().map(|id| pick(id / 3, 12))))),
        ("quantity", Arc::new(Int64Array::from_iter_values(ids.map(|id| pick(id / 5, 5))))),
    ];
    RecordBatch::try_from_iter(columns)
}

fn parquet(batch: &RecordBatch) -> Result<Vec<u8>, ParquetError> {
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), None)?;
    writer.write(batch)?;
    writer.close()?;
    Ok(file)
}
