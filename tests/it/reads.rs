//! What the works of the benchmark cost, cold and warm, in exact requests; and how reads are shared, kept and bounded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchReader, StringArray};
use datafusion::execution::memory_pool::{MemoryPool, MemoryReservation, UnboundedMemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_s3::S3Connector;
use datafusion_s3_testbed::{Counts, Operation, Testbed};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use tpchgen::generators::{CustomerGenerator, LineItemGenerator, OrderGenerator};
use tpchgen_arrow::{CustomerArrow, LineItemArrow, OrderArrow};

use crate::harness::{batch, connector, most_in_flight, parquet, query, registered, rows, session};

const MIB: usize = 1024 * 1024;

fn mix(number: i64) -> i64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64) & i64::MAX
}

/// Rows of an id, and of numbers and text that do not compress.
fn numbers(first: i64, rows: i64) -> RecordBatch {
    let ids = first..first + rows;
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(Int64Array::from_iter_values(ids.clone()))),
        ("number", Arc::new(Int64Array::from_iter_values(ids.clone().map(mix)))),
        ("text", Arc::new(StringArray::from_iter_values(ids.map(|id| format!("{:016x}", mix(id)))))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn row_groups(batches: &[RecordBatch], rows: usize) -> Vec<u8> {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(rows)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batches[0].schema(), Some(properties)).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.into_inner().unwrap()
}

fn generated(generator: impl RecordBatchReader) -> Vec<u8> {
    row_groups(&generator.map(Result::unwrap).collect::<Vec<_>>(), 1_000_000)
}

/// About 5 MB.
fn lines() -> String {
    let line = |id| format!("{id},{}.25,{:016x}\n", mix(id) % 1000, mix(id));
    std::iter::once("id,value,text\n".to_owned()).chain((0..160_000).map(line)).collect()
}

async fn load(testbed: &Testbed) {
    testbed.put("testbed", "points.parquet", row_groups(&[numbers(0, 60_000)], 10_000)).await.unwrap();
    for day in 0..1_000_i64 {
        testbed.put("testbed", &format!("days/day={day}/part-0.parquet"), parquet(&batch(day, 3))).await.unwrap();
    }
    testbed.put("testbed", "lines.csv", lines()).await.unwrap();
    const PARTS: i32 = 8;
    for part in 1..=PARTS {
        let orders = generated(OrderArrow::new(OrderGenerator::new(0.05, part, PARTS)));
        let items = generated(LineItemArrow::new(LineItemGenerator::new(0.05, part, PARTS)));
        assert!(orders.len() <= MIB && items.len() > MIB, "read whole, and in two steps");
        testbed.put("testbed", &format!("tpch/orders/part-{part}.parquet"), orders).await.unwrap();
        testbed.put("testbed", &format!("tpch/lineitem/part-{part}.parquet"), items).await.unwrap();
    }
    let customer = generated(CustomerArrow::new(CustomerGenerator::new(0.05, 1, 1)));
    testbed.put("testbed", "tpch/customer.parquet", customer).await.unwrap();
}

/// A work: a query, the tables that it names, and the LIST and GET requests that it costs cold and warm.
type Work = (&'static str, &'static [(&'static str, &'static str)], (u64, u64), (u64, u64));

const POINTS: (&str, &str) = ("points", "s3://testbed/points.parquet");
const DAYS: (&str, &str) = ("days", "s3://testbed/days/");
const LINES: (&str, &str) = ("lines", "s3://testbed/lines.csv");
const LINEITEM: (&str, &str) = ("lineitem", "s3://testbed/tpch/lineitem/");
const ORDERS: (&str, &str) = ("orders", "s3://testbed/tpch/orders/");
const CUSTOMER: (&str, &str) = ("customer", "s3://testbed/tpch/customer.parquet");

const WORKS: [Work; 10] = [
    // The end of the file, whose path is known, and a row group.
    ("SELECT * FROM points LIMIT 10", &[POINTS], (0, 2), (0, 1)),
    ("SELECT * FROM points WHERE id = 31415", &[POINTS], (0, 2), (0, 1)),
    ("SELECT count(*) FROM lineitem", &[LINEITEM], (1, 8), (0, 0)),
    // The first file and the newest, and the one that is asked for.
    ("SELECT sum(id) FROM days WHERE day = 500", &[DAYS], (1, 3), (0, 0)),
    ("SELECT sum(id) FROM days", &[DAYS], (1, 1_000), (0, 0)),
    (include_str!("tpch/q01.sql"), &[LINEITEM], (1, 16), (0, 8)),
    (include_str!("tpch/q06.sql"), &[LINEITEM], (1, 16), (0, 8)),
    // Files of orders are small, and read whole. That of customers is, too, but its size is not known before its end is read.
    (include_str!("tpch/q03.sql"), &[LINEITEM, ORDERS, CUSTOMER], (2, 8 + 2 + 16), (0, 1 + 8)),
    // The head, and four parts of the rest.
    ("SELECT avg(value) FROM lines", &[LINES], (0, 5), (0, 4)),
    ("SELECT * FROM lines LIMIT 10", &[LINES], (0, 1), (0, 0)),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_work_costs_what_it_should_cold_and_warm() {
    let testbed = Testbed::start().await.unwrap();
    load(&testbed).await;
    for (sql, tables, cold, warm) in WORKS {
        for target_partitions in [1, 2, 16] {
            let config = SessionConfig::new().with_target_partitions(target_partitions);
            let (ctx, s3) = (SessionContext::new_with_config(config), connector(&testbed).build().unwrap());
            for (expected, state) in [(cold, "cold"), (warm, "warm")] {
                testbed.reset_log();
                let before = s3.cache_counts();
                for (name, path) in tables {
                    ctx.deregister_table(*name).unwrap();
                    ctx.register_table(*name, s3.table(path).await.unwrap()).unwrap();
                }
                assert!(query(&ctx, sql).await.unwrap().iter().any(|batch| batch.num_rows() > 0));
                let counts = testbed.counts();
                let shown = format!("{sql}\n{state}, {target_partitions} partitions");
                assert_eq!((counts.list, counts.get, counts.head), (expected.0, expected.1, 0), "{shown}");
                assert_eq!(counts.requests(), expected.0 + expected.1, "{shown}");
                if state == "warm" {
                    let after = s3.cache_counts();
                    let misses = |counts: datafusion_s3::CacheCounts| counts.footers.misses + counts.schemas.misses;
                    assert_eq!(misses(after), misses(before), "{shown}");
                }
                if sql.ends_with("lines LIMIT 10") {
                    assert!(counts.bytes <= MIB as u64, "{counts}");
                } else if tables == [LINES] && state == "cold" {
                    assert_eq!(counts.bytes, lines().len() as u64, "no byte twice");
                }
            }
        }
    }
}

/// The ranges that were read of each key, in order, as first and last byte.
fn ranges(testbed: &Testbed) -> BTreeMap<String, Vec<String>> {
    let mut ranges = BTreeMap::<String, Vec<String>>::new();
    for record in testbed.log().into_iter().filter(|record| record.operation == Operation::Get) {
        ranges.entry(record.key).or_default().push(record.range.unwrap_or_default());
    }
    ranges
}

#[tokio::test]
async fn no_byte_of_a_file_is_read_twice() {
    let testbed = Testbed::start().await.unwrap();
    // One row group of about 2 MB, of which the first read has the last 512 KiB.
    let file = row_groups(&[numbers(0, 50_000)], 50_000);
    assert!((MIB..3 * MIB).contains(&file.len()), "{} bytes", file.len());
    testbed.put("testbed", "shop/t.parquet", file.clone()).await.unwrap();
    let (ctx, s3) = registered(&testbed, "s3://testbed/shop").await;
    testbed.reset_log();
    let sql = "SELECT sum(id), avg(number) > 0, max(length(text)) FROM s3.t";
    assert_eq!(rows(&ctx, sql).await, [format!("{}|true|16", (0..50_000_i64).sum::<i64>())]);
    let read = ranges(&testbed);
    let tail = file.len() - 512 * 1024;
    assert_eq!(read["shop/t.parquet"][..1], [format!("bytes={tail}-{}", file.len() - 1)]);
    let ends = format!("-{}", tail - 1);
    assert!(read["shop/t.parquet"][1].ends_with(&ends), "{read:?}");
    let counts = s3.cache_counts();
    assert!(counts.objects.bytes >= 512 * 1024 && counts.footers.hits >= 1, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn equal_reads_are_one_request() {
    let testbed = Testbed::start().await.unwrap();
    testbed.put("testbed", "shop/t.parquet", row_groups(&[numbers(0, 60_000)], 10_000)).await.unwrap();
    let (ctx, s3) = registered(&testbed, "s3://testbed/shop").await;
    s3.table("t").await.unwrap();
    // Long enough for all of them to ask.
    testbed.set_latency(Duration::from_secs(2));
    testbed.reset_log();
    let queries = (0..8).map(|_| {
        let ctx = ctx.clone();
        tokio::spawn(async move { rows(&ctx, "SELECT id FROM s3.t WHERE id = 31415").await })
    });
    for result in futures::future::join_all(queries).await {
        assert_eq!(result.unwrap(), ["31415"]);
    }
    assert_eq!(testbed.counts().get, 1, "{:?}", ranges(&testbed));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_are_bounded_by_their_setting_and_not_by_cores() {
    let testbed = Testbed::builder().latency(Duration::from_millis(200)).start().await.unwrap();
    for part in 0..150_i64 {
        testbed.put("testbed", &format!("t/{part:03}.parquet"), parquet(&batch(part, 1))).await.unwrap();
    }
    for (setting, most) in [(4, 3..=4), (64, 16..=64)] {
        let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
        let s3 = connector(&testbed).with_requests_in_flight(setting).build().unwrap();
        s3.register(&ctx, "s3").await.unwrap();
        testbed.reset_log();
        assert_eq!(rows(&ctx, "SELECT sum(id) FROM s3.\"s3://testbed/t/\"").await, ["11175"]);
        assert!(most.contains(&most_in_flight(&testbed)), "{} of {setting}", most_in_flight(&testbed));
        assert_eq!(testbed.counts().get, 150);
    }
}

#[tokio::test]
async fn large_reads_are_split_and_gaps_are_merged() {
    let testbed = Testbed::start().await.unwrap();
    // Two columns of about 20 MB in one row group, and between them one of 300 KB.
    let rows_of =
        |value: fn(i64) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values((0..2_500_000).map(value))) };
    let columns = [("a", rows_of(mix)), ("flag", rows_of(|n| mix(n) % 2)), ("b", rows_of(|n| mix(n + 1)))];
    let file = row_groups(&[RecordBatch::try_from_iter(columns).unwrap()], 2_500_000);
    testbed.put("testbed", "t.parquet", file).await.unwrap();
    let (ctx, s3) = (session(), connector(&testbed).build().unwrap());
    s3.register(&ctx, "s3").await.unwrap();
    for (columns, parts) in [("avg(flag)", 1), ("avg(a)", 2), ("avg(a), avg(b)", 3)] {
        s3.table("s3://testbed/t.parquet").await.unwrap();
        testbed.reset_log();
        rows(&ctx, &format!("SELECT {columns} FROM s3.\"s3://testbed/t.parquet\"")).await;
        assert_eq!(testbed.counts().get, parts, "{columns}: {:?}", ranges(&testbed));
        for record in testbed.log() {
            assert!(record.bytes <= 16 * MIB as u64, "{record:?}");
        }
    }
}

#[tokio::test]
async fn quoted_line_ends_never_split_a_record() {
    let testbed = Testbed::start().await.unwrap();
    // Every text has line ends and quotes in it, so that any cut at a line end would give other records.
    let record = |id: i64| format!("{id},\"line {id}\n7,\"\"x\"\"\n{}\"\n", "pad\n".repeat(20));
    let text: String = std::iter::once("id,text\n".to_owned()).chain((0..250_000).map(record)).collect();
    assert!(text.len() > 20 * MIB);
    testbed.put("testbed", "shop/t.csv", text.clone()).await.unwrap();
    let (ctx, _) = registered(&testbed, "s3://testbed/shop").await;
    testbed.reset_log();
    let found = rows(&ctx, "SELECT count(*), sum(id), count(DISTINCT id), min(length(text)) > 80 FROM s3.t").await;
    assert_eq!(found, ["250000|31249875000|250000|true"]);
    let counts = testbed.counts();
    assert!(counts.get > 4 && counts.bytes == text.len() as u64, "in parts, and no byte twice: {counts}");
}

#[tokio::test]
async fn late_decoding_reads_less_where_few_rows_pass() {
    let testbed = Testbed::start().await.unwrap();
    let file = row_groups(&[numbers(0, 400_000)], 400_000);
    let size = file.len() as u64;
    assert!(size > 8 * MIB as u64);
    testbed.put("testbed", "shop/t.parquet", file).await.unwrap();
    let number = mix(123_456);
    let (ctx, s3) = registered(&testbed, "s3://testbed/shop").await;
    s3.table("t").await.unwrap();
    testbed.reset_log();
    let found = rows(&ctx, &format!("SELECT id, text FROM s3.t WHERE number = {number}")).await;
    assert_eq!(found, [format!("123456|{number:016x}")]);
    let selective = testbed.counts();
    testbed.reset_log();
    let found =
        rows(&ctx, &format!("SELECT id, text FROM s3.t WHERE number <= {number} ORDER BY number DESC LIMIT 1")).await;
    assert_eq!(found, [format!("123456|{number:016x}")]);
    let other = testbed.counts();
    assert!(selective.bytes * 3 < other.bytes * 2, "{selective} against {other}");
}

#[tokio::test]
async fn late_decoding_gives_the_rows_of_files_that_differ() {
    let testbed = Testbed::start().await.unwrap();
    // Two partitions; the second file has no numbers, the third those of the first and NULL.
    let whole = numbers(0, 400_000);
    let part = whole.project(&[0, 2]).unwrap();
    let halves = Int64Array::from_iter((0..400_000).map(|id| (id % 2 == 0).then(|| mix(id))));
    let columns = [("id", whole.column(0)), ("number", &(Arc::new(halves) as ArrayRef)), ("text", whole.column(2))];
    let nulls = RecordBatch::try_from_iter(columns.map(|(name, column)| (name, Arc::clone(column)))).unwrap();
    for (key, batch) in [("p=1/a", whole.clone()), ("p=1/b", part), ("p=2/c", nulls)] {
        let file = row_groups(&[batch], 200_000);
        testbed.put("testbed", &format!("shop/t/{key}.parquet"), file).await.unwrap();
    }
    let (ctx, _) = registered(&testbed, "s3://testbed/shop").await;
    let (even, odd) = (mix(250_000), mix(250_001));
    for (filter, expected) in [
        (format!("number = {even}"), vec!["1|250000", "2|250000"]),
        (format!("number = {odd}"), vec!["1|250001"]),
        (format!("number IN ({even}, {odd}) AND p = 1"), vec!["1|250000", "1|250001"]),
        (format!("number = {even} AND id > 300000"), vec![]),
        (format!("number = {even} AND p = 2 AND text IS NOT NULL"), vec!["2|250000"]),
    ] {
        let sql = format!("SELECT p, id, length(text) FROM s3.t WHERE {filter} ORDER BY p, id");
        let plan = ctx.sql(&format!("EXPLAIN {sql}")).await.unwrap().collect().await.unwrap();
        let plan = arrow::util::pretty::pretty_format_batches(&plan).unwrap().to_string();
        assert!(!plan.contains("FilterExec"), "the scan filters itself: {plan}");
        let expected: Vec<String> = expected.iter().map(|row| format!("{row}|16")).collect();
        assert_eq!(rows(&ctx, &sql).await, expected, "{filter}");
    }
}

#[tokio::test]
async fn filters_that_come_later_drop_files_that_were_not_asked_for() {
    let testbed = Testbed::start().await.unwrap();
    // Files of more than 1 MiB, each with ids of its own.
    for part in 0..12_i64 {
        let file = row_groups(&[numbers(part * 40_000, 40_000)], 40_000);
        assert!(file.len() > MIB);
        testbed.put("testbed", &format!("shop/facts/{part:02}.parquet"), file).await.unwrap();
    }
    testbed.put("testbed", "shop/few.csv", "id,kind\n200001,a\n200002,b\n").await.unwrap();
    for (requests_in_flight, sql, expected, files) in [
        // Of a join: the ids of `few` are in one file.
        (
            64,
            "SELECT f.id, few.kind FROM s3.facts f JOIN s3.few ON f.id = few.id ORDER BY 1",
            vec!["200001|a", "200002|b"],
            1,
        ),
        // Of the first rows of an order: nothing after the first file can be among them.
        (1, "SELECT id, length(text) FROM s3.facts ORDER BY id LIMIT 2", vec!["0|16", "1|16"], 1),
    ] {
        let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let builder = connector(&testbed).with_root("s3://testbed/shop").with_requests_in_flight(requests_in_flight);
        let s3 = builder.build().unwrap();
        s3.register(&ctx, "s3").await.unwrap();
        for table in ["facts", "few"] {
            s3.table(table).await.unwrap();
        }
        testbed.reset_log();
        assert_eq!(rows(&ctx, sql).await, expected, "{sql}");
        assert_eq!(ranges(&testbed).len(), files, "{sql}: {:?}", ranges(&testbed));
    }
}

#[tokio::test]
async fn a_bloom_filter_tells_that_a_value_is_absent() {
    let testbed = Testbed::start().await.unwrap();
    let properties = WriterProperties::builder().set_bloom_filter_enabled(true).build();
    let batch = numbers(0, 200_000);
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    let file = writer.into_inner().unwrap();
    let size = file.len() as u64;
    testbed.put("testbed", "shop/t.parquet", file).await.unwrap();
    let (ctx, s3) = registered(&testbed, "s3://testbed/shop").await;
    s3.table("t").await.unwrap();
    testbed.reset_log();
    let absent = format!("SELECT text FROM s3.t WHERE number = {}", mix(7) ^ 1);
    assert!(rows(&ctx, &absent).await.is_empty());
    assert!(testbed.counts().bytes < size / 4, "{} of {size}", testbed.counts());
}

/// A memory pool without limit, which remembers the most that was taken from it.
#[derive(Debug, Default)]
struct Recorder {
    pool: UnboundedMemoryPool,
    most: AtomicUsize,
}

impl std::fmt::Display for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("recorder")
    }
}

impl MemoryPool for Recorder {
    fn name(&self) -> &str {
        "recorder"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.pool.grow(reservation, additional);
        self.most.fetch_max(self.pool.reserved(), Ordering::Relaxed);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.pool.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> datafusion::error::Result<()> {
        self.grow(reservation, additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.pool.reserved()
    }
}

#[tokio::test]
async fn row_groups_in_memory_count_in_the_pool() {
    let testbed = Testbed::start().await.unwrap();
    testbed.put("testbed", "shop/t.parquet", row_groups(&[numbers(0, 200_000)], 200_000)).await.unwrap();
    let pool = Arc::new(Recorder::default());
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::clone(&pool) as Arc<dyn MemoryPool>);
    let ctx = SessionContext::new_with_config_rt(SessionConfig::new(), runtime.build_arc().unwrap());
    let s3 = connector(&testbed).with_root("s3://testbed/shop").build().unwrap();
    s3.register(&ctx, "s3").await.unwrap();
    assert_eq!(rows(&ctx, "SELECT avg(number) > 0 FROM s3.t").await, ["true"]);
    let most = pool.most.load(Ordering::Relaxed);
    assert!(most > 200_000 * 7, "{most} bytes: a column of 200,000 numbers");
    assert_eq!(pool.reserved(), 0, "given back");
}

#[tokio::test]
async fn nothing_is_kept_where_nothing_may_be() {
    let testbed = Testbed::start().await.unwrap();
    testbed.put("testbed", "t.parquet", parquet(&batch(1, 3))).await.unwrap();
    let s3 = connector(&testbed).with_cache_bytes(0).build().unwrap();
    let ctx = session();
    s3.register(&ctx, "s3").await.unwrap();
    for _ in 0..2 {
        testbed.reset_log();
        assert_eq!(rows(&ctx, "SELECT sum(id) FROM s3.\"s3://testbed/t.parquet\" WHERE id > 1").await, ["5"]);
        assert_ne!(testbed.counts(), Counts::default());
    }
    let counts = s3.cache_counts();
    assert_eq!(counts.footers.bytes + counts.schemas.bytes + counts.objects.bytes, 0, "{counts:?}");
}

#[tokio::test]
async fn sessions_share_what_a_connector_keeps() {
    let testbed = Testbed::start().await.unwrap();
    testbed.put("testbed", "shop/t.parquet", parquet(&batch(1, 3))).await.unwrap();
    let (first, s3): (_, S3Connector) = registered(&testbed, "s3://testbed/shop").await;
    assert_eq!(rows(&first, "SELECT sum(id) FROM s3.t").await, ["6"]);
    let second = session();
    s3.register(&second, "other").await.unwrap();
    testbed.reset_log();
    assert_eq!(rows(&second, "SELECT sum(id) FROM other.t").await, ["6"]);
    assert_eq!(testbed.counts(), Counts::default());
    assert!(s3.cache_counts().objects.hits > 0);
}
