//! Disturbs whole invocations at every message, at random times and with exhausted resources, and compares what
//! they said with what the database holds then.
//!
//! `cargo test` runs a short version; `make torture` the long one.
#![expect(clippy::unwrap_used, reason = "a test may panic anywhere")]

#[path = "../harness/cluster.rs"]
mod cluster;
#[path = "../harness/query.rs"]
mod query;
#[path = "../harness/server_programs.rs"]
mod server_programs;

mod chance;
mod disturbances;
mod limits;
mod program;
mod proxy;
mod scenario;
mod server;
mod state;
mod tally;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use chance::Chance;
use proxy::Cut;
use scenario::Prepared;
use server::Server;
use tally::{Tally, Verdict};

const HELP: &str = "make torture ARGS='[--short] [--seed NUMBER] [--jobs NUMBER] [--at NUMBER] [WORDS...]'
--at cuts at this message only.
WORDS choose what is tried: cuts, kills, terminations, crashes, limits, or a part of a scenario's name.";

/// What is tried, and how much of it.
struct Choice {
    long: bool,
    seed: u64,
    jobs: usize,
    at: Option<usize>,
    words: Vec<String>,
}

impl Choice {
    fn read() -> Result<Self, String> {
        let mut choice = Self {
            long: false,
            seed: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            jobs: thread::available_parallelism().map_or(2, |cores| cores.get() + 1),
            at: None,
            words: Vec::new(),
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut number = |name: &str| {
                let value = args.next().and_then(|value| value.parse().ok());
                value.ok_or_else(|| format!("{name} takes a number"))
            };
            match arg.as_str() {
                "--long" => choice.long = true,
                "--short" => choice.long = false,
                "--seed" => choice.seed = number("--seed")?,
                "--jobs" => choice.jobs = usize::try_from(number("--jobs")?).unwrap_or(1).max(1),
                "--at" => choice.at = usize::try_from(number("--at")?).ok(),
                "--help" => return Err(HELP.to_owned()),
                word if !word.starts_with('-') => choice.words.push(word.to_owned()),
                // Options of the usual test harness say nothing here.
                _ => {}
            }
        }
        Ok(choice)
    }

    fn wants(&self, kind: &str, name: &str) -> bool {
        self.words.is_empty()
            || self.words.iter().any(|word| kind == word || name.contains(word.as_str()))
    }

    fn of(&self, short: usize, long: usize) -> usize {
        if self.long { long } else { short }
    }
}

/// Says a line.
fn say(line: &str) {
    // A reader that closes the pipe still gets the exit code.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn main() -> ExitCode {
    let choice = match Choice::read() {
        Ok(choice) => choice,
        Err(words) => {
            say(&words);
            return ExitCode::from(2);
        }
    };
    if std::env::args().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    let (tally, started) = (Tally::default(), Instant::now());
    let length = if choice.long { "long" } else { "short" };
    say(&format!("torture, {length}, --seed {}", choice.seed));
    cuts(&choice, &tally);
    random(&choice, &tally);
    crashes(&choice, &tally);
    if choice.wants("limits", "limits") {
        limits::all(choice.of(1200, 3000), &tally);
    }
    let (table, fine) = tally.table();
    say(&format!("\n{table}--seed {}, {} s", choice.seed, started.elapsed().as_secs()));
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Does something for each of many trials, several at once.
fn each(jobs: usize, trials: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..jobs.min(trials) {
            scope.spawn(|| {
                loop {
                    let trial = next.fetch_add(1, Ordering::Relaxed);
                    if trial >= trials {
                        return;
                    }
                    work(trial);
                }
            });
        }
    });
}

/// Every message of every scenario, cut in every way; the short version takes some of them.
fn cuts(choice: &Choice, tally: &Tally) {
    let chosen: Vec<_> =
        scenario::ALL.iter().filter(|scenario| choice.wants("cuts", scenario.name)).collect();
    if chosen.is_empty() {
        return;
    }
    let server = Server::start(&["max_connections=60", "max_wal_size=256MB"]);
    for scenario in chosen {
        let prepared = Prepared::new(&server, scenario);
        // A few more than an undisturbed run: what is repeated after a cut is not what was cut.
        let every = prepared.messages * Cut::EVERYWHERE.len();
        let trials = choice.of(6, every).min(every);
        let (from, every, trials) = match choice.at {
            Some(at) => {
                ((at - 1) * Cut::EVERYWHERE.len(), Cut::EVERYWHERE.len(), Cut::EVERYWHERE.len())
            }
            None => (0, every, trials),
        };
        say(&format!("{}: {} messages, {trials} cuts", scenario.name, prepared.messages));
        each(choice.jobs, trials, |trial| {
            // Spread over all of them where only some are taken.
            let which = from
                + trial * every / trials
                + usize::try_from(choice.seed).unwrap_or(0) % (every / trials);
            let (at, cut) =
                (which / Cut::EVERYWHERE.len() + 1, Cut::EVERYWHERE[which % Cut::EVERYWHERE.len()]);
            let verdict = prepared.cut(at, cut);
            tally.count(
                &format!("cut {}", scenario.name),
                &format!("{cut:?} message {at}"),
                verdict,
            );
        });
    }
}

/// SIGKILL and terminated backends at random times.
fn random(choice: &Choice, tally: &Tally) {
    type Disturb = fn(&Prepared<'_>, usize, Chance) -> Verdict;
    let named = |name: &str| scenario::ALL.iter().find(|scenario| scenario.name == name).unwrap();
    let kinds: [(&str, &str, &scenario::Scenario, Disturb, usize); 8] = [
        ("kills", "kill -9", &scenario::FLEET, disturbances::kill, choice.of(5, 500)),
        ("kills", "kill -9", &scenario::QUICK_FLEET, disturbances::kill, choice.of(3, 200)),
        ("kills", "kill -9", named("create-tenant"), disturbances::kill, choice.of(4, 200)),
        (
            "kills",
            "kill -9",
            named("create-tenant-in-steps"),
            disturbances::kill,
            choice.of(4, 200),
        ),
        ("kills", "kill -9", named("drop-schema"), disturbances::kill, choice.of(4, 200)),
        ("kills", "kill -9", named("no-transaction"), disturbances::kill, choice.of(3, 100)),
        (
            "terminations",
            "backends terminated,",
            &scenario::FLEET,
            disturbances::terminate,
            choice.of(3, 50),
        ),
        (
            "terminations",
            "backends terminated,",
            &scenario::QUICK_FLEET,
            disturbances::terminate,
            choice.of(2, 50),
        ),
    ];
    if !kinds.iter().any(|(kind, _, scenario, ..)| choice.wants(kind, scenario.name)) {
        return;
    }
    let server = Server::start(&["max_connections=60", "max_wal_size=256MB"]);
    let mut prepared: Vec<Prepared<'_>> = Vec::new();
    for (kind, doing, scenario, disturb, trials) in kinds {
        if !choice.wants(kind, scenario.name) {
            continue;
        }
        if !prepared.iter().any(|known| known.scenario.name == scenario.name) {
            prepared.push(Prepared::new(&server, scenario));
        }
        let prepared = prepared.iter().find(|known| known.scenario.name == scenario.name).unwrap();
        let name = format!("{doing} {}", scenario.name);
        say(&format!("{name}: {trials}"));
        each(choice.jobs, trials, |trial| {
            let verdict = disturb(prepared, trial, Chance::of(choice.seed, trial));
            tally.count(&name, &format!("trial {trial} of seed {}", choice.seed), verdict);
        });
    }
}

fn crashes(choice: &Choice, tally: &Tally) {
    if !choice.wants("crashes", "crashes") {
        return;
    }
    let server = Server::start(&["max_connections=60", "max_wal_size=256MB"]);
    let prepared = Prepared::new(&server, &scenario::FLEET);
    let trials = choice.of(2, 50);
    let name = format!("server crashes in {}", scenario::FLEET.name);
    say(&format!("{name}: {trials}"));
    for trial in 0..trials {
        let verdict = disturbances::crash(&prepared, trial, Chance::of(choice.seed, trial));
        tally.count(&name, &format!("trial {trial} of seed {}", choice.seed), verdict);
    }
    assert!(!server.log().contains("PANIC"), "{}", server.log());
}
