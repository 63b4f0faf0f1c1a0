//! How values are written as JSON.

use std::time::Duration;

use serde::Serializer;

/// Writes a duration as seconds with microseconds.
pub(crate) fn seconds<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    #[expect(clippy::cast_precision_loss, reason = "2^53 µs are 285 years")]
    serializer.serialize_f64(micros as f64 / 1e6)
}

/// Returns whether a field holds its default, so that it can be left out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
