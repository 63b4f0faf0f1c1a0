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
    pub const fn fixed(jobs: NonZeroUsize) -> Self {
        Self { most: jobs.get(), now: jobs.get(), adapts: false, epoch: 0, uncontended: 0 }
    }

    /// Returns a limit that starts at `most` and adapts to contention.
    pub const fn adaptive(most: NonZeroUsize) -> Self {
        Self { adapts: true, ..Self::fixed(most) }
    }

    /// Returns how many schemas may be worked on now; never 0.
    pub const fn jobs(&self) -> usize {
        self.now
    }

    /// Returns the upper bound of [`jobs`](Self::jobs).
    pub const fn most(&self) -> usize {
        self.most
    }

    /// Returns the epoch that a task belongs to which starts now.
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

    fn jobs(jobs: usize) -> NonZeroUsize {
        NonZeroUsize::new(jobs).expect("not 0")
    }

    /// Returns the limit after each step: `-` is a task that met contention, `+` one that did not.
    fn steps(mut limit: ConcurrencyLimit, steps: &str) -> Vec<usize> {
        let step = |step| {
            let epoch = limit.epoch();
            if step == '-' {
                limit.decrease(epoch)
            } else {
                limit.increase()
            };
            limit.jobs()
        };
        steps.chars().map(step).collect()
    }

    #[test]
    fn an_adaptive_limit_halves_and_grows_by_one() {
        let adaptive = |most| ConcurrencyLimit::adaptive(jobs(most));
        assert_eq!(steps(adaptive(8), "-----"), [4, 2, 1, 1, 1]);
        assert_eq!(steps(adaptive(4), "-++++++++"), [2, 2, 3, 3, 3, 4, 4, 4, 4]);
        // Contention resets the count of tasks without it.
        assert_eq!(steps(adaptive(8), "-+++-++"), [4, 4, 4, 4, 2, 2, 3]);
        assert_eq!(steps(ConcurrencyLimit::fixed(jobs(3)), "-+"), [3, 3]);
    }

    #[test]
    fn tasks_of_one_epoch_halve_the_limit_once() {
        let mut limit = ConcurrencyLimit::adaptive(jobs(8));
        let epoch = limit.epoch();
        let changed: Vec<bool> = (0..4).map(|_| limit.decrease(epoch)).collect();
        assert_eq!(changed, [true, false, false, false]);
        assert_eq!(limit.jobs(), 4);
    }
}
