//! How many schemas are migrated in one transaction, where the job accepts groups.

use std::time::Duration;

use crate::domain::run_options::GroupLimit;

/// How many schemas run alone after the first group that was rolled back.
const ALONE: usize = 16;

/// The upper bound of that number, which doubles with each group that is rolled back.
const MOST_ALONE: usize = 1024;

/// Chooses the size of the next group.
///
/// The first schema runs alone, so that an error in the files is found in one schema; then the size
/// doubles as long as the transactions are short. After a group that was rolled back, its schemas
/// and some more run alone, because the next ones are likely to meet the same obstacle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupSize {
    size: usize,
    alone: usize,
    next_alone: usize,
}

impl Default for GroupSize {
    fn default() -> Self {
        Self { size: 1, alone: 0, next_alone: ALONE }
    }
}

impl GroupSize {
    /// Returns the size of the next group, never 0: `left` schemas wait, and `jobs` transactions run
    /// at once.
    pub(super) fn next(&self, left: usize, limit: GroupLimit, jobs: usize) -> usize {
        // The last schemas are divided among all jobs, so that none is idle.
        self.size.min(limit.schemas).min(left.div_ceil(jobs.max(1))).max(1)
    }

    /// Adapts to a transaction of this many schemas that was committed after this time.
    pub(super) fn committed(&mut self, schemas: usize, took: Duration, limit: GroupLimit) {
        if schemas == 1 && self.alone > 0 {
            self.alone -= 1;
            return;
        }
        // A group that started before another was rolled back proves nothing.
        if self.alone > 0 {
            return;
        }
        let each = took.as_nanos() / schemas.max(1) as u128;
        let fit = usize::try_from(limit.time.as_nanos() / each.max(1)).unwrap_or(usize::MAX);
        self.size = (schemas * 2).min(fit).max(1);
    }

    /// Returns to single schemas because a group was rolled back.
    pub(super) fn rolled_back(&mut self) {
        if self.alone == 0 {
            self.alone = self.next_alone;
            self.next_alone = (self.next_alone * 2).min(MOST_ALONE);
        }
        self.size = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(1);

    const EIGHT: GroupLimit = GroupLimit { schemas: 8, time: Duration::from_millis(50) };

    #[test]
    fn it_doubles_up_to_the_limit_while_transactions_are_short() {
        let mut size = GroupSize::default();
        let mut sizes = Vec::new();
        for _ in 0..5 {
            let next = size.next(1000, EIGHT, 2);
            sizes.push(next);
            size.committed(next, QUICK, EIGHT);
        }
        assert_eq!(sizes, [1, 2, 4, 8, 8]);
        assert_eq!(size.next(1000, GroupLimit::ONE, 2), 1);
    }

    #[test]
    fn slow_schemas_run_alone_and_others_fill_the_time() {
        let mut size = GroupSize::default();
        size.committed(1, Duration::from_secs(1), EIGHT);
        assert_eq!(size.next(1000, EIGHT, 2), 1);
        size.committed(1, QUICK, EIGHT);
        size.committed(2, Duration::from_millis(40), EIGHT);
        assert_eq!(size.next(1000, EIGHT, 2), 2);
        size.committed(2, Duration::from_millis(200), EIGHT);
        assert_eq!(size.next(1000, EIGHT, 2), 1);
    }

    #[test]
    fn the_last_schemas_are_divided_among_jobs() {
        let mut size = GroupSize::default();
        size.committed(4, QUICK, EIGHT);
        assert_eq!(size.next(1000, EIGHT, 2), 8);
        assert_eq!(size.next(9, EIGHT, 2), 5);
        assert_eq!(size.next(1, EIGHT, 2), 1);
    }

    #[test]
    fn after_each_rollback_twice_as_many_run_alone() {
        let mut size = GroupSize::default();
        for expected in [16, 32, 64] {
            size.committed(4, QUICK, EIGHT);
            assert_eq!(size.next(1000, EIGHT, 2), 8);
            size.rolled_back();
            // Groups that ran at the same time do not count again.
            size.rolled_back();
            size.committed(8, QUICK, EIGHT);
            let mut alone = 0;
            while size.next(1000, EIGHT, 2) == 1 {
                size.committed(1, QUICK, EIGHT);
                alone += 1;
            }
            // The next schema is the first of a new start.
            assert_eq!(alone, expected + 1);
        }
    }
}
