//! The shell: what it prints where, and its exit codes.

use std::process::{Output, Stdio};
use std::sync::Arc;

use datafusion_s3_testbed::{FaultAction, FaultRequest, Operation, Testbed, fault_fn};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::harness::{batch, parquet};

/// What a run of the shell left behind.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    /// The data of a run that succeeded without a message.
    #[track_caller]
    fn data(&self) -> &str {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        &self.stdout
    }

    /// The message of a run that failed with this code and without data.
    #[track_caller]
    fn error(&self, code: i32) -> &str {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{self:?}");
        assert!(self.stderr.starts_with("error: "), "{self:?}");
        &self.stderr
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// The shell with these arguments and an empty environment.
fn bare(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_s3sql"));
    command.args(args).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

/// The shell as the identity of a testbed, whose endpoint is in a flag.
fn shell(testbed: &Testbed, args: &[&str]) -> Command {
    let mut command = bare(&["--endpoint", testbed.endpoint(), "--allow-http"]);
    command
        .args(args)
        .env("AWS_ACCESS_KEY_ID", testbed.access_key_id())
        .env("AWS_SECRET_ACCESS_KEY", testbed.secret_access_key())
        .env("AWS_REGION", testbed.region());
    command
}

async fn run(mut command: Command) -> Run {
    command.output().await.unwrap().into()
}

async fn run_with_input(mut command: Command, input: &str) -> Run {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    child.wait_with_output().await.unwrap().into()
}

/// A testbed with the table `articles` of three rows in the folder `shop` of its bucket, and the folder `sales`.
async fn shop() -> Testbed {
    let testbed = Testbed::builder().bucket("lake").public_bucket("open").denied_bucket("shut").start().await.unwrap();
    for (bucket, key, first) in [
        ("lake", "shop/articles.parquet", 1),
        ("lake", "shop/sales/a.parquet", 1),
        ("lake", "shop/sales/b.parquet", 4),
        ("open", "articles.parquet", 1),
    ] {
        testbed.put(bucket, key, parquet(&batch(first, 3))).await.unwrap();
    }
    testbed
}

/// Writes a file of SQL and returns its path.
fn script(name: &str, sql: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("s3sql-{name}.sql"));
    std::fs::write(&path, sql).unwrap();
    path.to_str().unwrap().to_owned()
}

const VALUES: &str = "SELECT * FROM (VALUES
    (1, 'a,\"b\"', TIMESTAMP '2024-01-02T03:04:05', arrow_cast('x', 'Utf8View'), [1, NULL], {k: 'v'}, 1.5),
    (2, NULL, NULL, NULL, NULL, NULL, NULL)) AS t(i, s, t, v, l, o, f)";

#[tokio::test]
async fn each_format_prints_rows_in_its_own_way() {
    for (format, rows, none) in [
        (
            "table",
            concat!(
                "+---+-------+---------------------+---+-------+--------+-----+\n",
                "| i | s     | t                   | v | l     | o      | f   |\n",
                "+---+-------+---------------------+---+-------+--------+-----+\n",
                "| 1 | a,\"b\" | 2024-01-02T03:04:05 | x | [1, ] | {k: v} | 1.5 |\n",
                "| 2 |       |                     |   |       |        |     |\n",
                "+---+-------+---------------------+---+-------+--------+-----+\n",
            ),
            "+---+---+\n| a | b |\n+---+---+\n+---+---+\n",
        ),
        (
            "csv",
            concat!(
                "i,s,t,v,l,o,f\n",
                "1,\"a,\"\"b\"\"\",2024-01-02T03:04:05,x,\"[1, null]\",{k: v},1.5\n",
                "2,,,,,,\n",
            ),
            "a,b\n",
        ),
        (
            "tsv",
            concat!(
                "i\ts\tt\tv\tl\to\tf\n",
                "1\t\"a,\"\"b\"\"\"\t2024-01-02T03:04:05\tx\t[1, null]\t{k: v}\t1.5\n",
                "2\t\t\t\t\t\t\n",
            ),
            "a\tb\n",
        ),
        (
            "json",
            concat!(
                r#"[{"i":1,"s":"a,\"b\"","t":"2024-01-02T03:04:05","v":"x","l":[1,null],"o":{"k":"v"},"f":1.5},"#,
                r#"{"i":2,"s":null,"t":null,"v":null,"l":null,"o":null,"f":null}]"#,
                "\n",
            ),
            "[]\n",
        ),
        (
            "ndjson",
            concat!(
                r#"{"i":1,"s":"a,\"b\"","t":"2024-01-02T03:04:05","v":"x","l":[1,null],"o":{"k":"v"},"f":1.5}"#,
                "\n",
                r#"{"i":2,"s":null,"t":null,"v":null,"l":null,"o":null,"f":null}"#,
                "\n",
            ),
            "",
        ),
    ] {
        assert_eq!(run(bare(&["--format", format, "-c", VALUES])).await.data(), rows, "{format}");
        let empty = "SELECT 1 AS a, [1] AS b WHERE false";
        assert_eq!(run(bare(&["--format", format, "-c", empty])).await.data(), none, "{format}");
    }
}

#[tokio::test]
async fn results_of_many_batches_are_one_result() {
    let sql = "SET datafusion.execution.batch_size = 2; SELECT value AS v FROM generate_series(1, 5)";
    for (format, expected) in [
        ("csv", "v\n1\n2\n3\n4\n5\n"),
        ("json", "[{\"v\":1},{\"v\":2},{\"v\":3},{\"v\":4},{\"v\":5}]\n"),
        ("ndjson", "{\"v\":1}\n{\"v\":2}\n{\"v\":3}\n{\"v\":4}\n{\"v\":5}\n"),
    ] {
        assert_eq!(run(bare(&["--format", format, "-c", sql])).await.data(), expected, "{format}");
    }
}

#[tokio::test]
async fn plans_are_readable() {
    let plan = run(bare(&["--format", "table", "-c", "EXPLAIN SELECT 1 AS a"])).await;
    let plan = plan.data();
    assert!(plan.contains("| logical_plan  | Projection: Int64(1) AS a"), "{plan}");
    assert!(plan.contains("\n|               |   EmptyRelation: rows=1"), "{plan}");
}

#[tokio::test]
async fn all_statements_share_one_session() {
    let view = "CREATE VIEW v AS SELECT 1 AS a";
    let file = script("view", "CREATE VIEW v AS SELECT 1 AS a;\n-- a remark;\nSELECT a + 1 AS b FROM v;\n");
    for (args, input, expected) in [
        (vec!["-c", view, "-c", "SELECT a FROM v"], "", "a\n1\n"),
        (vec!["-c", "CREATE VIEW v AS SELECT ';' AS a; SELECT a FROM v;;"], "", "a\n;\n"),
        (
            vec!["-c", "SET datafusion.execution.batch_size = 7", "-c", "SHOW datafusion.execution.batch_size"],
            "",
            "name,value\ndatafusion.execution.batch_size,7\n",
        ),
        (vec!["-c", "SELECT 1 AS a", "-c", "SELECT 2 AS b"], "", "a\n1\nb\n2\n"),
        (vec!["-c", "-- only a remark"], "", ""),
        (vec!["-f", &file, "-c", "SELECT a FROM v"], "", "b\n2\na\n1\n"),
        (vec!["-c", "SELECT 0 AS z", "--file", &file], "", "z\n0\nb\n2\n"),
        (vec!["-c", view, "-f", "-", "-c", "SELECT 3 AS c"], "SELECT a FROM v", "a\n1\nc\n3\n"),
        (vec![], "SELECT 1 AS a; SELECT 2 AS b", "a\n1\nb\n2\n"),
        (vec![], "", ""),
    ] {
        assert_eq!(run_with_input(bare(&args), input).await.data(), expected, "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_is_a_schema() {
    let testbed = shop().await;
    let count = "SELECT count(*) AS n FROM";
    for (args, expected) in [
        (vec!["-c", "SELECT name FROM s3.articles ORDER BY id"], "name\nn1\nn2\nn3\n"),
        (vec!["-c", &format!("{count} s3.sales")], "n\n6\n"),
        (vec!["--name", "shop", "-c", &format!("{count} shop.articles")], "n\n3\n"),
        (
            vec!["-c", "SELECT table_name FROM information_schema.tables WHERE table_schema = 's3' ORDER BY 1"],
            "table_name\narticles\nsales\n",
        ),
    ] {
        let run = run(shell(&testbed, &[&["s3://lake/shop"], args.as_slice()].concat())).await;
        assert_eq!(run.data(), expected, "{args:?}");
    }
    let run = run(shell(&testbed, &["s3://lake/shop/", "-c", "SHOW TABLES"])).await;
    assert!(run.data().contains("\ndatafusion,s3,sales,BASE TABLE\n"), "{run:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_root_a_table_is_a_full_path() {
    let testbed = shop().await;
    for (path, rows) in [("shop/articles.parquet", 3), ("shop/sales", 6), ("shop/sales/", 6)] {
        let sql = format!(r#"SELECT count(id) AS n FROM s3."s3://lake/{path}""#);
        assert_eq!(run(shell(&testbed, &["-c", &sql])).await.data(), format!("n\n{rows}\n"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_endpoint_may_come_from_the_environment() {
    let testbed = shop().await;
    for variable in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"] {
        let mut command = bare(&["s3://lake/shop", "-c", "SELECT count(*) AS n FROM s3.articles"]);
        command
            .env(variable, testbed.endpoint())
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_ACCESS_KEY_ID", testbed.access_key_id())
            .env("AWS_SECRET_ACCESS_KEY", testbed.secret_access_key());
        assert_eq!(run(command).await.data(), "n\n3\n", "{variable}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_bucket_needs_no_credentials() {
    let testbed = shop().await;
    let mut args = vec!["--endpoint", testbed.endpoint(), "--allow-http", "--anonymous"];
    args.extend(["--region", testbed.region(), "s3://open", "-c", "SELECT max(id) AS m FROM s3.articles"]);
    assert_eq!(run(bare(&args)).await.data(), "m\n3\n");
    assert!(testbed.log().iter().all(|request| request.access_key_id.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_has_a_code_and_a_message() {
    let testbed = shop().await;
    for (key, body) in [("hollow/", ""), ("hollow/_SUCCESS", ""), ("parts/year=2024/a.csv", "id\n1\n")] {
        testbed.put("lake", key, body).await.unwrap();
    }
    let missing = script("missing", "") + ".not";
    for (args, code, parts) in [
        (vec!["-c", "SELEC 1"], 1, vec!["sql parser error", "SELEC"]),
        (vec!["-c", "SELECT 1; SELEC 2"], 1, vec!["SELEC"]),
        (vec!["-c", "SELECT no"], 1, vec!["No field named no"]),
        (vec!["-c", "SELECT * FROM nowhere"], 1, vec!["nowhere"]),
        (vec!["-c", "SELECT * FROM s3.article"], 1, vec!["\"article\"", "without a root"]),
        (vec!["s3://lake/shop", "-c", "SELECT * FROM s3.article"], 1, vec!["\"article\"", "\"articles\""]),
        (vec!["-c", r#"SELECT * FROM s3."s3://lake/no.parquet""#], 1, vec!["s3://lake/no.parquet"]),
        (vec!["s3://lake/no", "-c", "SELECT 1"], 1, vec!["no tables under s3://lake/no/"]),
        (vec!["s3://lake/hollow", "-c", "SELECT 1"], 1, vec!["s3://lake/hollow/", "\"_SUCCESS\"", "hidden"]),
        (vec!["s3://lake/parts", "-c", "SELECT 1"], 1, vec!["s3://lake/parts/", "itself a table", "\"year=2024/\""]),
        (
            vec!["s3://lake/shop/articles.parquet", "-c", "SELECT 1"],
            1,
            vec!["s3://lake/shop/articles.parquet/", "a file's folder"],
        ),
        (vec!["s3://no-bucket", "-c", "SELECT 1"], 1, vec!["s3://no-bucket", "NoSuchBucket"]),
        (vec!["s3://shut", "-c", "SELECT 1"], 1, vec!["s3://shut", "access denied", "s3:ListBucket"]),
        (vec!["lake/shop", "-c", "SELECT 1"], 2, vec!["lake/shop", "s3://bucket/folder"]),
        (vec!["--endpoint", "minio", "-c", "SELECT 1"], 2, vec!["endpoint"]),
        (vec!["--name", "", "-c", "SELECT 1"], 2, vec!["name"]),
        (vec!["-c", "SELECT 1", "-f", &missing], 2, vec!["cannot read", &missing]),
        (vec!["--format", "xml"], 2, vec!["xml", "ndjson"]),
        (vec!["--nope"], 2, vec!["--nope"]),
    ] {
        // The flags of the testbed would collide with the case's own.
        let command = if args.contains(&"--endpoint") { bare(&args) } else { shell(&testbed, &args) };
        let run = run(command).await;
        let message = run.error(code);
        for part in parts {
            assert!(message.contains(part), "{args:?}: {message}");
        }
        for noise in ["External error", "Error during planning", "ParserError(", "Some("] {
            assert!(!message.contains(noise), "{args:?}: {message}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_a_scan_is_told_without_its_layers() {
    for (status, body, message) in [
        (
            403,
            "<Error><Code>AccessDenied</Code></Error>",
            "error: GET s3://lake/articles.parquet: access denied: AccessDenied: this identity needs s3:GetObject on the object\n",
        ),
        (
            412,
            "<Error><Code>PreconditionFailed</Code></Error>",
            "error: s3://lake/articles.parquet changed while it was read: refresh the connector and run the query again\n",
        ),
    ] {
        // The root's listing and the footer pass; the rows do not.
        let fault = fault_fn(move |request: &FaultRequest<'_>| match request.sequence {
            0 | 1 => FaultAction::Pass,
            _ => FaultAction::Respond { status, content_type: "application/xml", body: body.into() },
        });
        let testbed = Testbed::builder().bucket("lake").fault(Arc::new(fault)).start().await.unwrap();
        let body = parquet(&batch(1, 300_000));
        assert!(body.len() > 1024 * 1024, "its first read is not all of it");
        testbed.put("lake", "articles.parquet", body).await.unwrap();
        let run = run(shell(&testbed, &["s3://lake", "--format", "table", "-c", "SELECT * FROM s3.articles"])).await;
        assert_eq!(run.error(1), message);
    }
}

#[tokio::test]
async fn help_and_version_are_data() {
    assert!(run(bare(&["--help"])).await.data().contains("--stats"));
    assert_eq!(run(bare(&["--version"])).await.data(), format!("s3sql {}\n", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn nothing_runs_after_a_failure() {
    let file = script("after", "SELECT 1 AS a; SELECT no; SELECT 2 AS b");
    for args in [
        vec!["-c", "SELECT 1 AS a; SELECT no; SELECT 2 AS b"],
        vec!["-c", "SELECT 1 AS a", "-c", "SELECT no", "-c", "SELECT 2 AS b"],
        vec!["-f", &file, "-c", "SELECT 3 AS c"],
    ] {
        let run = run(bare(&args)).await;
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), "a\n1\n"), "{args:?}");
        assert_eq!(run.stderr, "error: No field named no.\n", "{args:?}");
    }
}

#[tokio::test]
async fn plain_http_must_be_allowed() {
    let sql = "SELECT 1";
    let run_flag = run(bare(&["--endpoint", "http://127.0.0.1:9", "-c", sql])).await;
    assert!(run_flag.error(2).contains("allow_http"), "{run_flag:?}");
    let mut command = bare(&["-c", sql]);
    command.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9");
    let run_environment = run(command).await;
    assert!(run_environment.error(2).contains("allow_http"), "{run_environment:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_told_but_not_shown() {
    let testbed = shop().await;
    let file = r#"SELECT * FROM s3."s3://lake/shop/articles.parquet""#;
    for args in [vec!["s3://lake/shop", "-c", "SELECT 1"], vec!["--stats", "-c", file]] {
        let mut command = shell(&testbed, &args);
        command.env("AWS_SECRET_ACCESS_KEY", "not-the-secret").env("AWS_SESSION_TOKEN", "not-a-token");
        let run = run(command).await;
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{run:?}");
        assert!(run.stderr.contains("access denied"), "{run:?}");
        for secret in ["not-the-secret", "not-a-token", testbed.secret_access_key()] {
            assert!(!run.stderr.contains(secret), "{run:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_are_a_line_for_each_statement() {
    let testbed = shop().await;
    let args = ["s3://lake/shop", "--stats", "--quiet", "-c", "SHOW TABLES; SET datafusion.execution.batch_size = 100"];
    let select = "SELECT * FROM s3.articles LIMIT 10; SELECT no";
    let run = run(shell(&testbed, &[&args[..], &["-c", select]].concat())).await;
    assert_eq!(run.code, Some(1), "{run:?}");
    let mut lines: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(lines.pop(), Some("error: No field named no."), "{run:?}");
    let stats: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |line: &Value, key: &str| line[key].as_u64().unwrap_or_else(|| panic!("{key} of {line}"));
    let cost = |line: &Value| ["list", "get", "head"].map(|key| count(line, key));
    let [show, set, query, failed] = stats.as_slice() else { panic!("{run:?}") };
    for line in [show, set, failed] {
        assert_eq!((cost(line), count(line, "bytes")), ([0, 0, 0], 0), "{line}");
    }
    let [list, get, head] = cost(query);
    assert!((list, head) == (0, 0) && (1..=2).contains(&get), "{query}");
    // The one listing is that of the root, before the first statement.
    let served = testbed.counts();
    assert_eq!((served.list, served.get, served.head), (1, get, 0));
    let listed: u64 = testbed.log().iter().filter(|r| r.operation == Operation::List).map(|r| r.bytes).sum();
    assert_eq!(count(query, "bytes"), served.bytes - listed);
    for line in &stats {
        assert!(line["seconds"].is_f64(), "{line}");
        assert_eq!(line.as_object().unwrap().len(), 5, "{line}");
    }
}

#[tokio::test]
async fn a_closed_pipe_is_a_success() {
    for format in ["csv", "json", "ndjson"] {
        let sql = "SELECT value FROM generate_series(1, 100000000); SELECT no";
        let mut child = bare(&["--format", format, "-c", sql]).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        // An array of JSON is one line.
        let end = if format == "json" { b'}' } else { b'\n' };
        assert!(stdout.read_until(end, &mut Vec::new()).await.unwrap() > 0);
        drop(stdout);
        assert_eq!(Run::from(child.wait_with_output().await.unwrap()).data(), "", "{format}");
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_has_its_own_code() {
    let testbed = shop().await;
    testbed.set_latency(std::time::Duration::from_secs(600));
    let child = shell(&testbed, &["s3://lake/shop", "-c", "SELECT 1"]).spawn().unwrap();
    // Once the shell waits for an answer, it listens to signals.
    while testbed.log().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    let run = Run::from(child.wait_with_output().await.unwrap());
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (Some(130), "", ""));
}
