//! Runs candidates in turns and evaluates their numbers.

use anyhow::Result;

use crate::args::RowName;
use crate::bench::Bench;

/// One candidate: its name, and a function that runs it and returns its number.
pub(crate) struct Side<'a> {
    name: String,
    run: Box<dyn FnMut() -> Result<f64> + 'a>,
}

impl<'a> Side<'a> {
    /// Creates a candidate.
    pub(crate) fn new(name: &str, run: impl FnMut() -> Result<f64> + 'a) -> Self {
        Self { name: name.to_owned(), run: Box::new(run) }
    }
}

/// All numbers of one candidate, in the order of the runs.
#[derive(Clone, Debug)]
pub(crate) struct Samples {
    pub(crate) name: String,
    pub(crate) values: Vec<f64>,
}

impl Samples {
    /// Returns the median.
    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        match sorted[..] {
            [] => f64::NAN,
            _ if sorted.len() % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    /// Returns the minimum and the maximum.
    pub(crate) fn range(&self) -> (f64, f64) {
        let sorted = self.sorted();
        let end = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        (end(sorted.first()), end(sorted.last()))
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// Runs the candidates in turns, forwards and backwards, so that other load on the machine affects
/// all of them.
pub(crate) fn in_turns(rounds: usize, sides: &mut [Side]) -> Result<Vec<Samples>> {
    let mut samples: Vec<Samples> = sides
        .iter()
        .map(|side| Samples { name: side.name.clone(), values: Vec::with_capacity(rounds) })
        .collect();
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..sides.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let value = (sides[index].run)()?;
            samples[index].values.push(value);
        }
    }
    Ok(samples)
}

/// The unit of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Mebibytes,
    /// A ratio of two medians.
    Times,
}

/// The limit of a number.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bar {
    AtMost(f64),
    AtLeast(f64),
}

/// A number with its limit, if it has one.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) what: String,
    /// `None` if it was not measured.
    pub(crate) value: Option<f64>,
    pub(crate) unit: Unit,
    pub(crate) bar: Option<Bar>,
}

impl Check {
    /// Returns whether the number is within its limit, if both are known.
    pub(crate) fn is_met(&self) -> Option<bool> {
        match (self.bar?, self.value?) {
            (Bar::AtMost(bar), value) => Some(value <= bar),
            (Bar::AtLeast(bar), value) => Some(value >= bar),
        }
    }
}

/// One row of the report.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) row: RowName,
    pub(crate) title: String,
    pub(crate) durable: bool,
    pub(crate) unit: Unit,
    pub(crate) samples: Vec<Samples>,
    pub(crate) checks: Vec<Check>,
    pub(crate) notes: Vec<String>,
}

impl Measured {
    /// Creates a row from these measurements.
    pub(crate) fn new(bench: &Bench, row: RowName, title: String, samples: Vec<Samples>) -> Self {
        Self {
            row,
            title,
            durable: bench.is_durable(),
            unit: Unit::Seconds,
            samples,
            checks: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Compares the medians of two candidates; the result is empty if one of them did not run.
    pub(crate) fn ratio(mut self, of: &str, to: &str, bar: Option<Bar>) -> Self {
        let value = self.median(of).zip(self.median(to));
        self.checks.push(Check {
            what: format!("{of} / {to}"),
            value: value.map(|(of, to)| of / to),
            unit: Unit::Times,
            bar,
        });
        self
    }

    /// Compares the median of one candidate with a number.
    pub(crate) fn limit(mut self, of: &str, bar: Bar) -> Self {
        self.checks.push(Check {
            what: of.to_owned(),
            value: self.median(of),
            unit: self.unit,
            bar: Some(bar),
        });
        self
    }

    /// Adds a note for the reader.
    pub(crate) fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// Returns the median of a candidate, if it ran.
    pub(crate) fn median(&self, name: &str) -> Option<f64> {
        let samples = self.samples.iter().find(|samples| samples.name == name)?;
        (!samples.values.is_empty()).then(|| samples.median())
    }
}
