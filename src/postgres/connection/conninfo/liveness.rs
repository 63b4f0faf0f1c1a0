//! Timeouts and keepalives (manual section 34.1.2).

use std::time::Duration;

use tokio_postgres::Config;

use super::error::ConnInfoError;
use super::parameters::Parameters;

/// Sets timeouts and keepalives. Zero and negative numbers mean the operating system's default, or no
/// limit.
pub(super) fn apply(parameters: &Parameters, config: &mut Config) -> Result<(), ConnInfoError> {
    let positive = |name| {
        Ok::<_, ConnInfoError>(
            parameters
                .number(name)?
                .and_then(|number| u32::try_from(number).ok())
                .filter(|number| *number > 0),
        )
    };
    let seconds = |number: u32| Duration::from_secs(number.into());
    if let Some(limit) = positive("connect_timeout")? {
        config.connect_timeout(seconds(limit));
    }
    // The only one in milliseconds.
    if let Some(limit) = positive("tcp_user_timeout")? {
        config.tcp_user_timeout(Duration::from_millis(limit.into()));
    }
    config.keepalives(parameters.number("keepalives")? != Some(0));
    if let Some(idle) = positive("keepalives_idle")? {
        config.keepalives_idle(seconds(idle));
    }
    if let Some(interval) = positive("keepalives_interval")? {
        config.keepalives_interval(seconds(interval));
    }
    if let Some(count) = positive("keepalives_count")? {
        config.keepalives_retries(count);
    }
    Ok(())
}
