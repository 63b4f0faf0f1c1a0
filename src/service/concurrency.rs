//! How many schemas are worked on at once: a fixed number, or one that gives way to contention.

use std::num::NonZeroUsize;

/// How many schemas are at work at once.
///
/// An adaptive pace halves when schemas are in each other's way, and grows back by one each
/// time as many schemas as are at work have finished undisturbed: additive increase,
/// multiplicative decrease, as TCP does it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConcurrencyLimit {
    most: usize,
    now: usize,
    adapts: bool,
    round: u32,
    undisturbed: usize,
}

/// The pace at which a schema was begun; see [`ConcurrencyLimit::disturbed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round(u32);

impl ConcurrencyLimit {
    /// Returns a pace that stays as it is.
    #[must_use]
    pub const fn fixed(jobs: NonZeroUsize) -> Self {
        Self {
            most: jobs.get(),
            now: jobs.get(),
            adapts: false,
            round: 0,
            undisturbed: 0,
        }
    }

    /// Returns a pace that begins with `most`, gives way to contention and comes back.
    #[must_use]
    pub const fn adaptive(most: NonZeroUsize) -> Self {
        Self {
            adapts: true,
            ..Self::fixed(most)
        }
    }

    /// Returns how many schemas may be at work now; never 0.
    #[must_use]
    pub const fn jobs(&self) -> usize {
        self.now
    }

    /// Returns how many there are at most.
    #[must_use]
    pub const fn most(&self) -> usize {
        self.most
    }

    /// Returns what a schema that begins now has to keep for [`ConcurrencyLimit::disturbed`].
    #[must_use]
    pub const fn round(&self) -> Round {
        Round(self.round)
    }

    /// Notes that a schema met a lock or a deadlock, and returns whether the pace changed.
    ///
    /// Schemas that began before the last halving do not halve it again: they collided with
    /// each other at a pace that is not kept any more.
    pub const fn disturbed(&mut self, begun: Round) -> bool {
        if !self.adapts || begun.0 != self.round {
            return false;
        }
        self.undisturbed = 0;
        if self.now == 1 {
            return false;
        }
        self.now /= 2;
        self.round += 1;
        true
    }

    /// Notes that a schema finished without meeting anybody, and returns whether the pace changed.
    pub const fn calm(&mut self) -> bool {
        if self.now == self.most {
            return false;
        }
        self.undisturbed += 1;
        if self.undisturbed < self.now {
            return false;
        }
        self.undisturbed = 0;
        self.now += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adaptive(most: usize) -> ConcurrencyLimit {
        ConcurrencyLimit::adaptive(NonZeroUsize::new(most).expect("not 0"))
    }

    #[test]
    fn contention_halves_and_never_ends_the_work() {
        let mut pace = adaptive(8);
        let mut seen = vec![pace.jobs()];
        for _ in 0..5 {
            let round = pace.round();
            pace.disturbed(round);
            seen.push(pace.jobs());
        }
        assert_eq!(seen, [8, 4, 2, 1, 1, 1]);
    }

    #[test]
    fn schemas_of_one_collision_halve_once() {
        let mut pace = adaptive(8);
        let together = pace.round();
        let changed: Vec<bool> = (0..4).map(|_| pace.disturbed(together)).collect();
        assert_eq!(changed, [true, false, false, false]);
        assert_eq!(pace.jobs(), 4);
    }

    #[test]
    fn it_grows_back_by_one_for_a_calm_round_and_not_beyond_the_beginning() {
        let mut pace = adaptive(4);
        let round = pace.round();
        pace.disturbed(round);
        assert_eq!(pace.jobs(), 2);
        let mut seen = Vec::new();
        for _ in 0..8 {
            pace.calm();
            seen.push(pace.jobs());
        }
        assert_eq!(seen, [2, 3, 3, 3, 4, 4, 4, 4]);
    }

    #[test]
    fn a_disturbance_begins_the_count_of_calm_schemas_anew() {
        let mut pace = adaptive(2);
        let round = pace.round();
        pace.disturbed(round);
        let mut slow = adaptive(8);
        let round = slow.round();
        slow.disturbed(round);
        for _ in 0..3 {
            slow.calm();
        }
        let round = slow.round();
        slow.disturbed(round);
        assert!(!slow.calm());
        assert_eq!((pace.jobs(), slow.jobs()), (1, 2));
    }

    #[test]
    fn a_fixed_pace_stays() {
        let mut pace = ConcurrencyLimit::fixed(NonZeroUsize::new(3).expect("not 0"));
        let round = pace.round();
        assert!(!pace.disturbed(round));
        assert!(!pace.calm());
        assert_eq!(pace.jobs(), 3);
    }
}
