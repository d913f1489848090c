//! The shell `s3sql`: SQL over an S3 root from the command line. Arguments and printing only; the rest is the library's.
//!
//! Data goes to standard output, everything else to standard error. The exit code is 0 for success (also where the
//! reader of the output went away), 1 for an error of a query or of the root, 2 for one of usage, 130 for Ctrl-C.

mod failure;
mod output;

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};
use datafusion::error::DataFusionError;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::dialect::dialect_from_str;
use datafusion_s3::{ConnectorSettings, S3Connector};

use crate::failure::Failure;
use crate::output::Format;

/// Run SQL over the tables behind an S3 root.
///
/// Credentials, region and endpoint come from the AWS_* environment unless set here.
#[derive(Debug, Parser)]
#[command(name = "s3sql", version)]
struct Arguments {
    /// Folder whose children are the tables, as s3://bucket/folder; without it a table is s3."s3://bucket/key"
    root: Option<String>,

    /// Run SQL, one or more statements separated by `;`; repeatable, in the order of -c and -f
    #[arg(short, long = "command", value_name = "SQL", allow_hyphen_values = true)]
    commands: Vec<String>,

    /// Run a file of SQL, `-` for standard input; repeatable; `-` if there is neither -c nor -f
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Format of results; table on a terminal, else csv
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// Print no messages but errors
    #[arg(long)]
    quiet: bool,

    /// Print a line of JSON to standard error after each statement: seconds, list, get, head, bytes
    #[arg(long)]
    stats: bool,

    /// Region of the buckets
    #[arg(long)]
    region: Option<String>,

    /// URL of a store other than AWS
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,

    /// Send unsigned requests, for public buckets
    #[arg(long)]
    anonymous: bool,

    /// Permit an endpoint with plain http
    #[arg(long)]
    allow_http: bool,

    /// Name of the schema that holds the tables
    #[arg(long, default_value = "s3")]
    name: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    // A task of its own, since writing to a pipe that nobody reads blocks this one.
    tokio::spawn(async {
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    });
    let matches = Arguments::command().get_matches();
    let arguments = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    match Box::pin(run(&arguments, &matches)).await {
        Ok(()) | Err(Failure::ClosedPipe) => ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => {
            say(&format!("error: {message}"));
            ExitCode::from(2)
        }
        Err(Failure::Query(message)) => {
            say(&format!("error: {message}"));
            ExitCode::from(1)
        }
    }
}

/// Runs everything, up to the first failure. What can be wrong with the arguments is found before anything is sent.
async fn run(arguments: &Arguments, matches: &ArgMatches) -> Result<(), Failure> {
    let s3 = connector(arguments)?;
    let scripts = scripts(arguments, matches)?;
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_information_schema(true));
    s3.register(&ctx, &arguments.name).await?;
    if s3.root().is_some() {
        // For COPY … TO: whoever runs the shell has the credentials anyway.
        s3.register_object_store(&ctx)?;
    }
    for script in scripts {
        // The whole text is parsed before its first statement runs: nothing is half done because of a typing error.
        for statement in parse(&ctx, &script)? {
            execute(&ctx, &s3, statement, arguments).await?;
        }
    }
    Ok(())
}

fn connector(arguments: &Arguments) -> Result<S3Connector, Failure> {
    let mut settings = ConnectorSettings::default();
    settings.name.clone_from(&arguments.name);
    settings.root.clone_from(&arguments.root);
    settings.region.clone_from(&arguments.region);
    settings.endpoint.clone_from(&arguments.endpoint);
    settings.anonymous = arguments.anonymous;
    settings.allow_http = arguments.allow_http;
    S3Connector::builder().with_settings(settings).build().map_err(|error| Failure::Usage(error.to_string()))
}

/// The texts of -c and -f in the order of the command line.
fn scripts(arguments: &Arguments, matches: &ArgMatches) -> Result<Vec<String>, Failure> {
    let indices = |id| matches.indices_of(id).into_iter().flatten();
    let mut scripts: Vec<(usize, String)> = indices("commands").zip(arguments.commands.iter().cloned()).collect();
    for (index, file) in indices("files").zip(&arguments.files) {
        scripts.push((index, read(file)?));
    }
    if scripts.is_empty() {
        scripts.push((0, read(Path::new("-"))?));
    }
    scripts.sort_by_key(|(index, _)| *index);
    Ok(scripts.into_iter().map(|(_, script)| script).collect())
}

fn read(file: &Path) -> Result<String, Failure> {
    if file.as_os_str() == "-" {
        let mut text = String::new();
        let result = io::stdin().read_to_string(&mut text);
        return result.map(|_| text).map_err(|error| Failure::Usage(format!("cannot read standard input: {error}")));
    }
    std::fs::read_to_string(file).map_err(|error| Failure::Usage(format!("cannot read {}: {error}", file.display())))
}

/// Splits a text into statements, in the dialect that the session is set to.
fn parse(ctx: &SessionContext, script: &str) -> Result<Vec<Statement>, DataFusionError> {
    let state = ctx.state();
    let options = &state.config_options().sql_parser;
    let dialect = dialect_from_str(options.dialect).ok_or_else(|| {
        DataFusionError::Configuration(format!("there is no parser for the dialect {}", options.dialect))
    })?;
    let parser = DFParserBuilder::new(script).with_dialect(dialect.as_ref());
    let statements = parser.with_recursion_limit(options.recursion_limit.into()).build()?.parse_statements()?;
    Ok(statements.into())
}

/// Runs one statement, prints its rows, and says what it cost, failed or not.
async fn execute(
    ctx: &SessionContext,
    s3: &S3Connector,
    statement: Statement,
    arguments: &Arguments,
) -> Result<(), Failure> {
    let started = Instant::now();
    let before = s3.request_counts();
    let printed = print(ctx, statement, arguments.format).await;
    let seconds = started.elapsed().as_secs_f64();
    if arguments.stats {
        let cost = s3.request_counts() - before;
        say(&format!(
            r#"{{"seconds":{seconds:.6},"list":{},"get":{},"head":{},"bytes":{}}}"#,
            cost.list, cost.get, cost.head, cost.bytes
        ));
    }
    let rows = printed?;
    if !arguments.quiet && io::stderr().is_terminal() {
        match rows {
            Some(1) => say(&format!("1 row in {seconds:.3} s")),
            Some(rows) => say(&format!("{rows} rows in {seconds:.3} s")),
            None => say(&format!("done in {seconds:.3} s")),
        }
    }
    Ok(())
}

/// Runs one statement and prints its rows; `None` where it has no result.
async fn print(ctx: &SessionContext, statement: Statement, format: Option<Format>) -> Result<Option<u64>, Failure> {
    let plan = Box::pin(ctx.state().statement_to_plan(statement)).await?;
    let rows = Box::pin(ctx.execute_logical_plan(plan)).await?.execute_stream().await?;
    let mut stdout = io::stdout().lock();
    let format = format.unwrap_or(if stdout.is_terminal() { Format::Table } else { Format::Csv });
    let count = output::print(rows, format, &mut stdout).await?;
    stdout.flush()?;
    Ok(count)
}

/// Prints a message. Where nobody reads messages, the exit code still tells.
fn say(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}
