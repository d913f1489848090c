//! Peak memory of a scan of 2 GB of Parquet and of one CSV of 1 GB, ours and DataFusion's own `ListingTable`.
//!
//! `cargo bench --bench memory`. `SCALE` (default 1) scales the sizes, `LATENCY_MS` (default 0) is the time to the first byte
//! of an answer, `RATE_MB` (default 0, no limit) the rate of a connection. The S3 server is a process of its own, and so
//! is each case. Peaks are read from `/proc`, so that it measures on Linux only.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::prelude::SessionContext;
use datafusion_s3::S3Connector;
use datafusion_s3_testbed::Testbed;
use object_store::aws::AmazonS3Builder;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const BUCKET: &str = "bench";

/// Files of the Parquet table, all with the same bytes.
const FILES: usize = 16;

const CASES: [(&str, &str, &str, &str); 2] = [
    (
        "Parquet, 16 files",
        "s3://bench/numbers/",
        "STORED AS PARQUET",
        "SELECT sum(a), max(b), max(c), count(text), max(text) FROM t WHERE a + b <> c",
    ),
    ("CSV, one file", "s3://bench/lines.csv", "STORED AS CSV", "SELECT sum(id), max(value), max(text) FROM t"),
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => runtime.block_on(serve()),
        ["case", case, who, endpoint, region, id, secret] => {
            runtime.block_on(measure(case.parse()?, who, Server { endpoint, region, id, secret }))
        }
        _ => compare(),
    }
}

/// Where the server is, and how to sign for it.
#[derive(Clone, Copy)]
struct Server<'a> {
    endpoint: &'a str,
    region: &'a str,
    id: &'a str,
    secret: &'a str,
}

fn compare() -> Result<()> {
    if memory("VmHWM").is_none() {
        println!("There is no /proc/self/status here: memory cannot be measured.");
        return Ok(());
    }
    let (mut server, keep_alive, line) = spawn_server()?;
    let settings: Vec<&str> = line.split_whitespace().collect();
    println!("\n| scan | MB read | seconds | MiB at the start | peak MiB | difference |");
    println!("|---|---|---|---|---|---|");
    for (case, (name, ..)) in CASES.iter().enumerate() {
        for who in ["ours", "stock"] {
            let arguments = ["case", &case.to_string(), who].map(str::to_owned);
            let settings = settings.iter().map(|setting| (*setting).to_owned());
            let status = Command::new(std::env::current_exe()?).args(arguments.into_iter().chain(settings)).status()?;
            if !status.success() {
                return Err(format!("{who}, {name}: {status}").into());
            }
        }
    }
    drop(keep_alive);
    server.wait()?;
    Ok(())
}

/// Starts the server process, which ends when its standard input does. Its first line is where it is.
fn spawn_server() -> Result<(Child, Option<ChildStdin>, String)> {
    let mut server =
        Command::new(std::env::current_exe()?).arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let keep_alive = server.stdin.take();
    let mut line = String::new();
    BufReader::new(server.stdout.take().ok_or("no output of the server")?).read_line(&mut line)?;
    Ok((server, keep_alive, line))
}

async fn serve() -> Result<()> {
    let scale = setting("SCALE", 1.0)?;
    let testbed = Testbed::builder().bucket(BUCKET).start().await?;
    let file = bytes::Bytes::from(parquet((3_000_000.0 * scale) as i64)?);
    for number in 0..FILES {
        testbed.put(BUCKET, &format!("numbers/{number:02}.parquet"), file.clone()).await?;
    }
    let lines = (24_000_000.0 * scale) as i64;
    let mut text = String::with_capacity(48 * usize::try_from(lines)?);
    text.push_str("id,value,text\n");
    for id in 0..lines {
        use std::fmt::Write;
        writeln!(text, "{id},{}.25,{:016x}{:04x}", mix(id) % 100_000, mix(id), id % 65_536)?;
    }
    testbed.put(BUCKET, "lines.csv", text).await?;
    testbed.set_latency(Duration::from_secs_f64(setting("LATENCY_MS", 0.0)? / 1e3));
    testbed.set_rate(Some((setting("RATE_MB", 0.0)? * 1e6) as u64).filter(|rate| *rate > 0));
    println!("{} {} {} {}", testbed.endpoint(), testbed.region(), testbed.access_key_id(), testbed.secret_access_key());
    std::io::stdout().flush()?;
    let end = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    end.await??;
    Ok(())
}

fn setting(name: &str, default: f64) -> Result<f64> {
    Ok(std::env::var(name).ok().map(|text| text.parse()).transpose()?.unwrap_or(default))
}

/// Reads all columns once, and prints what that took.
async fn measure(case: usize, who: &str, server: Server<'_>) -> Result<()> {
    let (name, path, stock, sql) = CASES[case];
    let ctx = SessionContext::new();
    let s3 = S3Connector::builder()
        .with_environment(false)
        .with_endpoint(server.endpoint)
        .with_region(server.region)
        .with_access_key(server.id, server.secret)
        .with_allow_http(true)
        .build()?;
    if who == "ours" {
        s3.object_store_registry().get_store(&format!("s3://{BUCKET}").parse()?)?;
    } else {
        let store = AmazonS3Builder::new()
            .with_bucket_name(BUCKET)
            .with_endpoint(server.endpoint)
            .with_region(server.region)
            .with_access_key_id(server.id)
            .with_secret_access_key(server.secret)
            .with_allow_http(true)
            .build()?;
        ctx.register_object_store(&format!("s3://{BUCKET}").parse()?, Arc::new(store));
    }
    std::fs::write("/proc/self/clear_refs", "5").ok();
    let start = memory("VmRSS").unwrap_or_default();
    let clock = Instant::now();
    if who == "ours" {
        ctx.register_table("t", s3.table(path).await?)?;
    } else {
        ctx.sql(&format!("CREATE EXTERNAL TABLE t {stock} LOCATION '{path}'")).await?.collect().await?;
    }
    ctx.sql(sql).await?.collect().await?;
    let seconds = clock.elapsed().as_secs_f64();
    let peak = memory("VmHWM").unwrap_or_default();
    let read = if who == "ours" { format!("{:.0}", s3.request_counts().bytes as f64 / 1e6) } else { "–".to_owned() };
    println!("| {name}, {who} | {read} | {seconds:.2} | {start} | {peak} | {} |", peak.saturating_sub(start));
    Ok(())
}

/// A figure of this process's memory, in MiB.
fn memory(figure: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes / 1024)
}

fn mix(number: i64) -> i64 {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64) >> 1) & i64::MAX
}

/// A file of so many rows of about 44 bytes that do not compress, in row groups of a million.
fn parquet(rows: i64) -> Result<Vec<u8>> {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(1_000_000)).build();
    let mut writer: Option<ArrowWriter<Vec<u8>>> = None;
    for first in (0..rows).step_by(100_000) {
        let ids = first..(first + 100_000).min(rows);
        let numbers = |salt: i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(ids.clone().map(|id| mix(id * 3 + salt) >> 8)))
        };
        let text: ArrayRef = Arc::new(StringArray::from_iter_values(ids.clone().map(|id| format!("{:016x}", mix(id)))));
        let batch =
            RecordBatch::try_from_iter([("a", numbers(0)), ("b", numbers(1)), ("c", numbers(2)), ("text", text)])?;
        let writer = match &mut writer {
            Some(writer) => writer,
            None => writer.insert(ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.clone()))?),
        };
        writer.write(&batch)?;
    }
    Ok(writer.ok_or("no rows")?.into_inner()?)
}
