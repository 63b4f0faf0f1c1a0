//! Benchmarks pricesync against the raw limit of the server and other tools.
//!
//! `cargo bench --bench fleet -- --quick`; see CONTRIBUTING. Starts a private server, builds
//! databases once, copies them for every timed run, runs the candidates in turns, compares
//! medians, and writes tables and a chart.

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
        // `cargo test --benches` also starts this program, without measuring.
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

/// Returns whether every row was measured and, with `--strict`, every limit was kept.
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
                // The other rows are still useful.
                Err(error) => {
                    say(&format!("{} not measured: {error:#}\n", row.key()));
                    complete = false;
                }
            }
            // An interrupted run keeps its measurements.
            report.write()?;
        }
    }
    say(&report.finish(args, complete)?);
    Ok(complete && (!args.strict || report.is_met()))
}

/// Prints progress. A closed stderr does not end the measurement.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
