//! How many schemas are worked on at once: a fixed number, or one that adapts to lock contention.

use std::num::NonZeroUsize;

/// How many schemas are worked on at once.
///
/// An adaptive limit halves on lock contention, and grows back by one each time as many schemas as
/// run at once have finished without contention: additive increase, multiplicative decrease, as in
/// TCP congestion control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConcurrencyLimit {
    most: usize,
    now: usize,
    adapts: bool,
    epoch: u32,
    uncontended: usize,
}

/// The time between two decreases of a limit; see [`ConcurrencyLimit::decrease`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(u32);

impl ConcurrencyLimit {
    /// Returns a limit that never changes.
    #[must_use]
    pub const fn fixed(jobs: NonZeroUsize) -> Self {
        Self { most: jobs.get(), now: jobs.get(), adapts: false, epoch: 0, uncontended: 0 }
    }

    /// Returns a limit that starts at `most` and adapts to contention.
    #[must_use]
    pub const fn adaptive(most: NonZeroUsize) -> Self {
        Self { adapts: true, ..Self::fixed(most) }
    }

    /// Returns how many schemas may be worked on now; never 0.
    #[must_use]
    pub const fn jobs(&self) -> usize {
        self.now
    }

    /// Returns the upper bound of [`jobs`](Self::jobs).
    #[must_use]
    pub const fn most(&self) -> usize {
        self.most
    }

    /// Returns the epoch that a task belongs to which starts now.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    /// Halves an adaptive limit because a task met contention, and returns whether it changed.
    ///
    /// A task that started before the last decrease does not decrease it again: it ran under the
    /// higher limit.
    pub const fn decrease(&mut self, started_in: Epoch) -> bool {
        if !self.adapts || started_in.0 != self.epoch {
            return false;
        }
        self.uncontended = 0;
        if self.now == 1 {
            return false;
        }
        self.now /= 2;
        self.epoch += 1;
        true
    }

    /// Counts a task that met no contention, and returns whether the limit grew.
    pub const fn increase(&mut self) -> bool {
        if self.now == self.most {
            return false;
        }
        self.uncontended += 1;
        if self.uncontended < self.now {
            return false;
        }
        self.uncontended = 0;
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
    fn contention_halves_the_limit_down_to_one() {
        let mut limit = adaptive(8);
        let mut seen = vec![limit.jobs()];
        for _ in 0..5 {
            let epoch = limit.epoch();
            limit.decrease(epoch);
            seen.push(limit.jobs());
        }
        assert_eq!(seen, [8, 4, 2, 1, 1, 1]);
    }

    #[test]
    fn tasks_of_one_epoch_halve_the_limit_once() {
        let mut limit = adaptive(8);
        let epoch = limit.epoch();
        let changed: Vec<bool> = (0..4).map(|_| limit.decrease(epoch)).collect();
        assert_eq!(changed, [true, false, false, false]);
        assert_eq!(limit.jobs(), 4);
    }

    #[test]
    fn it_grows_back_by_one_up_to_where_it_started() {
        let mut limit = adaptive(4);
        let epoch = limit.epoch();
        limit.decrease(epoch);
        assert_eq!(limit.jobs(), 2);
        let mut seen = Vec::new();
        for _ in 0..8 {
            limit.increase();
            seen.push(limit.jobs());
        }
        assert_eq!(seen, [2, 3, 3, 3, 4, 4, 4, 4]);
    }

    #[test]
    fn contention_resets_the_count_of_uncontended_tasks() {
        let mut limit = adaptive(2);
        let epoch = limit.epoch();
        limit.decrease(epoch);
        let mut slow = adaptive(8);
        let epoch = slow.epoch();
        slow.decrease(epoch);
        for _ in 0..3 {
            slow.increase();
        }
        let epoch = slow.epoch();
        slow.decrease(epoch);
        assert!(!slow.increase());
        assert_eq!((limit.jobs(), slow.jobs()), (1, 2));
    }

    #[test]
    fn a_fixed_limit_never_changes() {
        let mut limit = ConcurrencyLimit::fixed(NonZeroUsize::new(3).expect("not 0"));
        let epoch = limit.epoch();
        assert!(!limit.decrease(epoch));
        assert!(!limit.increase());
        assert_eq!(limit.jobs(), 3);
    }
}
