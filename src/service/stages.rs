//! The stages of a run: canaries, batches and the pauses between them.

use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use super::selection::Selection;

/// The stages of a run. By default there is one stage with all tenants.
#[derive(Clone, Debug, Default)]
pub struct Stages {
    /// These tenants are the first stage; a failure among them ends the run.
    pub canary: Selection,
    /// Where each following stage ends; a last stage with the remaining tenants is added.
    pub batches: Vec<StageLimit>,
    /// The time between two stages.
    pub pause: Duration,
}

/// Where a stage ends, counted in tenants with pending work, those of earlier stages included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageLimit {
    /// Hundredths of a percent of them, rounded up.
    Share(u32),
    /// A number of tenants.
    Count(usize),
}

/// The whole, in hundredths of a percent.
const WHOLE: u32 = 10_000;

impl StageLimit {
    fn of(self, total: usize) -> usize {
        match self {
            Self::Count(count) => count.min(total),
            Self::Share(share) => (total * share as usize).div_ceil(WHOLE as usize),
        }
    }
}

impl FromStr for StageLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected a share such as 5% or 0.5%, or a number of tenants".to_owned();
        let Some(percent) = text.trim().strip_suffix('%') else {
            return match text.trim().parse() {
                Ok(count @ 1..) => Ok(Self::Count(count)),
                _ => Err(expected()),
            };
        };
        let (whole, part) = percent.split_once('.').unwrap_or((percent, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 2 || whole.len() > 3 {
            return Err(expected());
        }
        match format!("{whole}{part:0<2}").parse() {
            Ok(share @ 1..=WHOLE) => Ok(Self::Share(share)),
            _ => Err(expected()),
        }
    }
}

/// The kind of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StageKind {
    /// The tenants of [`Stages::canary`].
    Canary,
    /// A part of the other tenants.
    Batch,
}

/// One stage: positions in the list of tenants with pending work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stage {
    pub(super) kind: StageKind,
    pub(super) members: Vec<usize>,
}

impl Stages {
    /// Checks what can be checked before the number of tenants is known.
    ///
    /// # Errors
    ///
    /// Why the stages are invalid.
    pub fn check(&self) -> Result<(), &'static str> {
        let grows = |pair: &[StageLimit]| match (pair[0], pair[1]) {
            (StageLimit::Share(first), StageLimit::Share(second)) => first < second,
            (StageLimit::Count(first), StageLimit::Count(second)) => first < second,
            // Which of the two is larger depends on the number of tenants.
            (first, _) => first != StageLimit::Share(WHOLE),
        };
        if !self.batches.windows(2).all(grows) {
            return Err(
                "invalid batches: each is the total so far, so it must be larger than the one before",
            );
        }
        if !self.pause.is_zero() && self.batches.is_empty() && self.canary.include.is_empty() {
            return Err("a pause requires several stages: set canaries or batches");
        }
        Ok(())
    }

    /// Returns the stages for tenants of which these are canaries. None is empty, and every tenant
    /// is in exactly one.
    pub(super) fn cut(&self, canaries: &[bool]) -> Vec<Stage> {
        let total = canaries.len();
        let positions = |wanted: bool| (0..total).filter(move |&at| canaries[at] == wanted);
        let first: Vec<usize> = positions(true).collect();
        let mut taken = first.len();
        let mut stages = vec![Stage { kind: StageKind::Canary, members: first }];
        let mut others = positions(false);
        for extent in self.batches.iter().chain(&[StageLimit::Share(WHOLE)]) {
            let more = extent.of(total).saturating_sub(taken);
            taken += more;
            stages.push(Stage {
                kind: StageKind::Batch,
                members: others.by_ref().take(more).collect(),
            });
        }
        stages.retain(|stage| !stage.members.is_empty());
        stages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages(batches: &str) -> Stages {
        Stages {
            batches: batches.split_terminator(',').map(|text| text.parse().expect(text)).collect(),
            ..Stages::default()
        }
    }

    fn sizes(batches: &str, canaries: &[usize], total: usize) -> Vec<usize> {
        let flags: Vec<bool> = (0..total).map(|at| canaries.contains(&at)).collect();
        let cut = stages(batches).cut(&flags);
        let mut all: Vec<usize> = cut.iter().flat_map(|stage| stage.members.clone()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..total).collect::<Vec<_>>(), "each tenant once");
        cut.iter().map(|stage| stage.members.len()).collect()
    }

    #[test]
    fn limits_are_cumulative_and_the_last_stage_has_the_rest() {
        assert_eq!(sizes("5%,25%,100%", &[], 200), [10, 40, 150]);
        assert_eq!(sizes("5%,25%", &[], 200), [10, 40, 150]);
        assert_eq!(sizes("1,10,50%", &[], 100), [1, 9, 40, 50]);
        assert_eq!(sizes("", &[], 7), [7]);
        assert_eq!(sizes("5%", &[], 0), Vec::<usize>::new());
    }

    #[test]
    fn shares_are_rounded_up_and_empty_stages_left_out() {
        assert_eq!(sizes("5%,25%", &[], 10), [1, 2, 7]);
        assert_eq!(sizes("0.5%,1%,2%", &[], 10), [1, 9]);
        assert_eq!(sizes("500", &[], 10), [10]);
        assert_eq!(sizes("9,10%", &[], 10), [9, 1]);
    }

    #[test]
    fn canaries_come_first_and_count() {
        assert_eq!(sizes("", &[3], 10), [1, 9]);
        assert_eq!(sizes("50%", &[3, 7], 10), [2, 3, 5]);
        assert_eq!(sizes("10%,50%", &[3, 7], 10), [2, 3, 5]);
        let cut = stages("50%").cut(&[false, true, false, false]);
        assert_eq!(cut[0].kind, StageKind::Canary);
        let members: Vec<_> = cut.into_iter().map(|stage| stage.members).collect();
        assert_eq!(members, [vec![1], vec![0], vec![2, 3]]);
    }

    #[test]
    fn limits_are_parsed_strictly() {
        assert_eq!("5%".parse(), Ok(StageLimit::Share(500)));
        assert_eq!("0.5%".parse(), Ok(StageLimit::Share(50)));
        assert_eq!("100%".parse(), Ok(StageLimit::Share(10_000)));
        assert_eq!("12".parse(), Ok(StageLimit::Count(12)));
        for bad in ["", "0", "0%", "101%", "-1", "5.%", ".5%", "1.234%", "5 %%", "x"] {
            assert!(bad.parse::<StageLimit>().is_err(), "{bad}");
        }
    }

    #[test]
    fn batches_grow_and_a_pause_needs_two_stages() {
        assert_eq!(stages("5%,25%,100%").check(), Ok(()));
        assert_eq!(stages("1,10%,50%").check(), Ok(()));
        for bad in ["25%,5%", "5%,5%", "10,3", "100%,100%", "100%,5"] {
            assert!(stages(bad).check().is_err(), "{bad}");
        }
        let paused = Stages { pause: Duration::from_secs(1), ..Stages::default() };
        assert!(paused.check().is_err());
    }
}
