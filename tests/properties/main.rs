//! What holds for any name, any folder of files and any history, tried on many.
//!
//! `cargo test` tries a share of them; `make properties` all, and says how many that were.

#[expect(unreachable_pub, reason = "the fuzz targets use them too")]
mod entries;
mod histories;
mod listings;
mod mutations;
mod names;

use std::cell::Cell;
use std::fmt::Debug;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};

/// Tries a property on `some` cases, or on `all` of them where `PRICESYNC_PROPERTIES` is `all`.
///
/// # Panics
///
/// With the smallest case that it found for which the property does not hold.
#[expect(clippy::print_stderr, reason = "the figure is the result of a long run")]
fn holds<S>(
    what: &str,
    [some, all]: [u32; 2],
    cases: &S,
    property: impl Fn(S::Value) -> TestCaseResult,
) where
    S: Strategy,
    S::Value: Debug,
{
    let every = std::env::var("PRICESYNC_PROPERTIES").is_ok_and(|share| share == "all");
    let config = Config {
        cases: if every { all } else { some },
        failure_persistence: None,
        ..Config::default()
    };
    let tried = Cell::new(0_u64);
    let result = TestRunner::new(config).run(cases, |case| {
        tried.set(tried.get() + 1);
        property(case)
    });
    if let Err(error) = result {
        panic!("{what}: {error}");
    }
    eprintln!("{what}: held in {} cases", tried.get());
}
