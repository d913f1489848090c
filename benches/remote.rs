//! Our tables beside DataFusion's own `ListingTable`, on one S3 server with latency, in one process and run.
//!
//! `cargo bench --bench remote`. `LATENCY_MS` (comma-separated, default 50) is the time to the first byte of an answer,
//! `RATE_MB` (default 90, 0 for no limit) the rate of a connection, `SCALE_FACTOR` (default 1) that of TPC-H, `RUNS`
//! (default 3) how often each work is measured; the median is printed. An argument is a filter on the names of works.
//!
//! Both are told the paths of their tables. Cold is the first query of a new session and connector, with an HTTP client
//! that has sent nothing yet; warm is the same query once more. The second table adds what it costs to find the tables
//! of a root by listing it.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatchReader, StringArray};
use arrow::record_batch::RecordBatch;
use datafusion::prelude::SessionContext;
use datafusion_s3::S3Connector;
use datafusion_s3_testbed::{Counts, Testbed};
use object_store::aws::AmazonS3Builder;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use tpchgen::generators::{CustomerGenerator, LineItemGenerator, OrderGenerator};
use tpchgen_arrow::{CustomerArrow, LineItemArrow, OrderArrow};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const BUCKET: &str = "bench";

/// A table: its name in the query, where it lies, and what else stock DataFusion wants to know of it.
struct Table {
    name: &'static str,
    path: &'static str,
    stock: &'static str,
}

/// A work: what it is called, the query and its tables.
struct Work {
    name: &'static str,
    sql: &'static str,
    tables: &'static [Table],
    /// The query for stock DataFusion where it must be another: its partition columns are text.
    stock_sql: Option<&'static str>,
    /// The root that holds the table, where finding it is measured, too.
    root: Option<&'static str>,
}

const fn work(name: &'static str, sql: &'static str, tables: &'static [Table]) -> Work {
    Work { name, sql, tables, stock_sql: None, root: None }
}

const PARQUET: &str = "STORED AS PARQUET";
const POINTS: Table = Table { name: "points", path: "s3://bench/points/points.parquet", stock: PARQUET };
const DAYS: Table =
    Table { name: "days", path: "s3://bench/days/days/", stock: "STORED AS PARQUET PARTITIONED BY (day)" };
const LINES: Table = Table { name: "lines", path: "s3://bench/lines/lines.csv", stock: "STORED AS CSV" };
const LINEITEM: Table = Table { name: "lineitem", path: "s3://bench/tpch/lineitem/", stock: PARQUET };
const ORDERS: Table = Table { name: "orders", path: "s3://bench/tpch/orders/", stock: PARQUET };
const CUSTOMER: Table = Table { name: "customer", path: "s3://bench/tpch/customer.parquet", stock: PARQUET };

const WORKS: [Work; 11] = [
    Work {
        root: Some("s3://bench/points"),
        ..work("SELECT * LIMIT 10, one Parquet file of 1.9 MB", "SELECT * FROM points LIMIT 10", &[POINTS])
    },
    work("point lookup in it", "SELECT * FROM points WHERE id = 31415", &[POINTS]),
    Work {
        root: Some("s3://bench/tpch"),
        ..work("COUNT(*), 8 Parquet files", "SELECT count(*) FROM lineitem", &[LINEITEM])
    },
    Work {
        stock_sql: Some("SELECT sum(id) FROM days WHERE day = '500'"),
        root: Some("s3://bench/days"),
        ..work("one hive partition of 1,000", "SELECT sum(id) FROM days WHERE day = 500", &[DAYS])
    },
    work("aggregate over all 1,000 partitions", "SELECT sum(id) FROM days", &[DAYS]),
    work("TPC-H Q1, 8 files", include_str!("../tests/it/tpch/q01.sql"), &[LINEITEM]),
    work("TPC-H Q6", include_str!("../tests/it/tpch/q06.sql"), &[LINEITEM]),
    work("TPC-H Q3", include_str!("../tests/it/tpch/q03.sql"), &[LINEITEM, ORDERS, CUSTOMER]),
    work("rows of one part, unsorted, 8 files", "SELECT * FROM lineitem WHERE l_partkey = 31415", &[LINEITEM]),
    work("avg of one column, CSV of 5 MB", "SELECT avg(value) FROM lines", &[LINES]),
    work("SELECT * LIMIT 10 on it", "SELECT * FROM lines LIMIT 10", &[LINES]),
];

fn main() -> Result<()> {
    // `cargo bench` passes --bench; anything else is a filter on the names of works.
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&filter))
}

async fn run(filter: &str) -> Result<()> {
    let testbed = Testbed::builder().bucket(BUCKET).start().await?;
    let scale_factor = setting("SCALE_FACTOR", 1.0)?;
    load(&testbed, scale_factor).await?;
    testbed.set_rate(Some((setting("RATE_MB", 90.0)? * 1e6) as u64).filter(|rate| *rate > 0));
    let runs = setting("RUNS", 3.0)? as usize;
    let latencies = std::env::var("LATENCY_MS").unwrap_or_else(|_| "50".to_owned());
    let works = || WORKS.iter().filter(|work| work.name.contains(filter));
    for latency in latencies.split(',') {
        testbed.set_latency(Duration::from_secs_f64(latency.trim().parse::<f64>()? / 1e3));
        println!("\n{latency} ms to the first byte, TPC-H at scale factor {scale_factor}");
        println!("seconds (requests, MB read, most requests in flight)\n");
        println!("| work | ours, cold | stock, cold | stock/ours | ours, warm | stock, warm | stock/ours |");
        println!("|---|---|---|---|---|---|---|");
        for work in works() {
            let (ours, stock) = compare(&testbed, work, None, runs).await?;
            let [cold, warm] = [0, 1].map(|run| stock[run].seconds / ours[run].seconds);
            let name = work.name;
            println!("| {name} | {} | {} | {cold:.2} | {} | {} | {warm:.2} |", ours[0], stock[0], ours[1], stock[1]);
        }
        println!("\n| the same, ours from a root that is listed first | ours, cold | stock, cold | stock/ours |");
        println!("|---|---|---|---|");
        for (work, root) in works().filter_map(|work| Some((work, work.root?))) {
            let ([ours, _], [stock, _]) = compare(&testbed, work, Some(root), runs).await?;
            println!("| {} | {ours} | {stock} | {:.2} |", work.name, stock.seconds / ours.seconds);
        }
    }
    Ok(())
}

/// Cold and warm medians of ours and of stock DataFusion. Each goes first in every other run.
async fn compare(testbed: &Testbed, work: &Work, root: Option<&str>, runs: usize) -> Result<([Cost; 2], [Cost; 2])> {
    let (mut ours, mut stock) = (Vec::new(), Vec::new());
    for run in 0..runs {
        if run % 2 == 0 {
            ours.push(measure_ours(testbed, work, root).await?);
            stock.push(measure_stock(testbed, work).await?);
        } else {
            stock.push(measure_stock(testbed, work).await?);
            ours.push(measure_ours(testbed, work, root).await?);
        }
    }
    Ok((medians(ours), medians(stock)))
}

fn setting(name: &str, default: f64) -> Result<f64> {
    Ok(std::env::var(name).ok().map(|text| text.parse()).transpose()?.unwrap_or(default))
}

/// What a query cost.
#[derive(Debug, Clone)]
struct Cost {
    seconds: f64,
    counts: Counts,
    in_flight: usize,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let megabytes = self.counts.bytes as f64 / 1e6;
        write!(f, "{:.3} ({}, {megabytes:.2}, {})", self.seconds, self.counts.requests(), self.in_flight)
    }
}

/// The cold and the warm run with the median time of each.
fn medians(mut runs: Vec<[Cost; 2]>) -> [Cost; 2] {
    [0, 1].map(|warm| {
        runs.sort_by(|a, b| a[warm].seconds.total_cmp(&b[warm].seconds));
        runs[runs.len() / 2][warm].clone()
    })
}

async fn measure_ours(testbed: &Testbed, work: &Work, root: Option<&str>) -> Result<[Cost; 2]> {
    let ctx = SessionContext::new();
    let mut builder = S3Connector::builder()
        .with_environment(false)
        .with_endpoint(testbed.endpoint())
        .with_region(testbed.region())
        .with_access_key(testbed.access_key_id(), testbed.secret_access_key())
        .with_allow_http(true);
    if let Some(root) = root {
        builder = builder.with_root(root);
    }
    let s3 = builder.build()?;
    // The client of the bucket, which is built on first use.
    s3.object_store_registry().get_store(&format!("s3://{BUCKET}").parse()?)?;
    let cold = cost(testbed, async {
        register(&ctx, &s3, work, root).await?;
        query(&ctx, work.sql).await
    });
    let cold = cold.await?;
    let warm = cost(testbed, async {
        // As a query by path does: the connector is asked for its tables again.
        register(&ctx, &s3, work, root).await?;
        query(&ctx, work.sql).await
    });
    Ok([cold, warm.await?])
}

/// Gives the session the tables of a work by their names in the query.
async fn register(ctx: &SessionContext, s3: &S3Connector, work: &Work, root: Option<&str>) -> Result<()> {
    for table in work.tables {
        let provider = s3.table(if root.is_some() { table.name } else { table.path }).await?;
        ctx.deregister_table(table.name)?;
        ctx.register_table(table.name, provider)?;
    }
    Ok(())
}

async fn measure_stock(testbed: &Testbed, work: &Work) -> Result<[Cost; 2]> {
    let ctx = SessionContext::new();
    let store = AmazonS3Builder::new()
        .with_bucket_name(BUCKET)
        .with_endpoint(testbed.endpoint())
        .with_region(testbed.region())
        .with_access_key_id(testbed.access_key_id())
        .with_secret_access_key(testbed.secret_access_key())
        .with_allow_http(true)
        .build()?;
    ctx.register_object_store(&format!("s3://{BUCKET}").parse()?, Arc::new(store));
    let sql = work.stock_sql.unwrap_or(work.sql);
    let cold = cost(testbed, async {
        for Table { name, path, stock } in work.tables {
            query(&ctx, &format!("CREATE EXTERNAL TABLE {name} {stock} LOCATION '{path}'")).await?;
        }
        query(&ctx, sql).await
    });
    Ok([cold.await?, cost(testbed, query(&ctx, sql)).await?])
}

async fn query(ctx: &SessionContext, sql: &str) -> Result<()> {
    ctx.sql(sql).await?.collect().await?;
    Ok(())
}

async fn cost(testbed: &Testbed, work: impl Future<Output = Result<()>>) -> Result<Cost> {
    testbed.reset_log();
    let start = Instant::now();
    work.await?;
    let seconds = start.elapsed().as_secs_f64();
    let mut edges: Vec<(Duration, i32)> = Vec::new();
    for record in testbed.log() {
        edges.extend([(record.started, 1), (record.started + record.elapsed, -1)]);
    }
    edges.sort_unstable();
    let (mut open, mut most) = (0, 0);
    for (_, change) in edges {
        open += change;
        most = most.max(open);
    }
    Ok(Cost { seconds, counts: testbed.counts(), in_flight: usize::try_from(most)? })
}

/// Writes all tables into the bucket.
async fn load(testbed: &Testbed, scale_factor: f64) -> Result<()> {
    let points = numbers(0, 60_000)?;
    testbed.put(BUCKET, "points/points.parquet", parquet(&[points], 10_000)?).await?;
    for day in 0..1_000_i64 {
        let file = parquet(&[numbers(day * 1_600, 1_600)?], 100_000)?;
        testbed.put(BUCKET, &format!("days/days/day={day}/part-0.parquet"), file).await?;
    }
    let mut lines = String::from("id,value,text\n");
    for id in 0..160_000_i64 {
        lines.push_str(&format!("{id},{}.25,{:016x}\n", mix(id) % 1000, mix(id)));
    }
    testbed.put(BUCKET, "lines/lines.csv", lines).await?;

    const PARTS: i32 = 8;
    for part in 1..=PARTS {
        let orders = OrderArrow::new(OrderGenerator::new(scale_factor, part, PARTS));
        let items = LineItemArrow::new(LineItemGenerator::new(scale_factor, part, PARTS));
        testbed.put(BUCKET, &format!("tpch/orders/part-{part}.parquet"), generated(orders)?).await?;
        testbed.put(BUCKET, &format!("tpch/lineitem/part-{part}.parquet"), generated(items)?).await?;
    }
    let customer = CustomerArrow::new(CustomerGenerator::new(scale_factor, 1, 1));
    testbed.put(BUCKET, "tpch/customer.parquet", generated(customer)?).await?;
    Ok(())
}

fn mix(number: i64) -> i64 {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64) >> 1) & i64::MAX
}

/// Rows of an id and of text that does not compress.
fn numbers(first: i64, rows: i64) -> Result<RecordBatch> {
    let ids = first..first + rows;
    let columns: [(&str, ArrayRef); 2] = [
        ("id", Arc::new(Int64Array::from_iter_values(ids.clone()))),
        ("text", Arc::new(StringArray::from_iter_values(ids.map(|id| format!("{:016x}", mix(id)))))),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

fn generated(generator: impl RecordBatchReader) -> Result<Vec<u8>> {
    parquet(&generator.collect::<std::result::Result<Vec<_>, _>>()?, 1_000_000)
}

fn parquet(batches: &[RecordBatch], row_group: usize) -> Result<Vec<u8>> {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(row_group)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batches[0].schema(), Some(properties))?;
    for batch in batches {
        writer.write(batch)?;
    }
    Ok(writer.into_inner()?)
}
