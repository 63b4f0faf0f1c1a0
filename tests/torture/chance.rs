//! Chance that can be repeated.

use std::time::Duration;

/// A generator (SplitMix64): the same seed brings the same numbers.
pub(crate) struct Chance(u64);

impl Chance {
    /// The chance of one trial of many: it does not depend on what the others drew.
    pub(crate) fn of(seed: u64, trial: usize) -> Self {
        let mut chance = Self(seed ^ (trial as u64).wrapping_mul(0xd134_2543_de82_ef95));
        chance.next();
        chance
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A time below a limit.
    pub(crate) fn below(&mut self, limit: Duration) -> Duration {
        let micros = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros(self.next() % micros)
    }
}
