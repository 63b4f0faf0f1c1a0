//! How fast pricesync is, beside the raw limit of the server and beside other tools.
//!
//! `cargo bench --bench fleet -- --quick`; see CONTRIBUTING. The walk: start a private
//! server, build databases once, copy them for every timed run, let the candidates run in
//! turns, compare medians, write tables and a chart.

mod args;
mod bench;
mod chart;
mod files;
mod fleet;
mod library;
mod measure;
mod memory;
mod peers;
mod process;
mod raw;
mod report;
mod rows;
mod server;
mod session;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use args::Args;
use bench::Bench;
use report::Report;

fn main() -> ExitCode {
    let args = Args::parse();
    if !args.bench {
        // `cargo test --benches` starts this program too, and must stay quick.
        say("a benchmark and no test: cargo bench --bench fleet");
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(3),
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Returns whether every row was measured and, where it was asked, no bar was missed.
fn run(args: &Args) -> anyhow::Result<bool> {
    let bench = Bench::start(args)?;
    let mut report = Report::new(&bench)?;
    let mut complete = true;
    for row in rows::chosen(args) {
        for &durable in row.modes(args) {
            bench.use_mode(durable)?;
            match row.measure(&bench) {
                Ok(results) => {
                    for result in results {
                        say(&result.table());
                        report.push(result);
                    }
                }
                // The other rows are worth having.
                Err(error) => {
                    say(&format!("{} not measured: {error:#}\n", row.key()));
                    complete = false;
                }
            }
            // An interrupted run keeps what it has measured.
            report.write()?;
        }
    }
    say(&report.finish(args, complete)?);
    Ok(complete && (!args.strict || report.is_met()))
}

/// Tells the person who waits. Nobody who stopped listening ends a measurement.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
