//! Timeouts and keepalives (manual section 34.1.2).

use std::time::Duration;

use super::error::ConnInfoError;
use super::parameters::Parameters;

/// Timeouts and keepalives of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Liveness {
    /// The limit for connecting to one host; `None` means no limit.
    pub(super) connect_timeout: Option<Duration>,
    /// How long sent data may stay unacknowledged.
    pub(super) tcp_user_timeout: Option<Duration>,
    /// Whether TCP probes an idle connection; on by default.
    pub(super) keepalives: bool,
    /// Idle time before the first probe.
    pub(super) idle: Option<Duration>,
    /// Time between probes.
    pub(super) interval: Option<Duration>,
    /// Probes before giving up.
    pub(super) count: Option<u32>,
}

impl Liveness {
    /// Reads the parameters. Zero and negative numbers mean the operating system's default, or no limit.
    pub(super) fn read(parameters: &Parameters) -> Result<Self, ConnInfoError> {
        let positive = |name| {
            Ok(parameters
                .number(name)?
                .and_then(|number| u32::try_from(number).ok())
                .filter(|number| *number > 0))
        };
        let seconds = |name| {
            Ok::<_, ConnInfoError>(positive(name)?.map(|number| Duration::from_secs(number.into())))
        };
        Ok(Self {
            connect_timeout: seconds("connect_timeout")?,
            // The only one in milliseconds.
            tcp_user_timeout: positive("tcp_user_timeout")?
                .map(|number| Duration::from_millis(number.into())),
            keepalives: parameters.number("keepalives")? != Some(0),
            idle: seconds("keepalives_idle")?,
            interval: seconds("keepalives_interval")?,
            count: positive("keepalives_count")?,
        })
    }
}
