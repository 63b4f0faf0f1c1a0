//! Requirements on the session (manual section 34.1.2).

use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, LoadBalanceHosts, TargetSessionAttrs};

use super::error::ConnInfoError;
use super::parameters::Parameters;

/// Sets the requirements and the order of hosts, and warns about `client_encoding` other than UTF-8.
pub(super) fn apply(
    parameters: &Parameters,
    config: &mut Config,
    warnings: &mut Vec<String>,
) -> Result<(), ConnInfoError> {
    let attributes = parameters.choice(
        "target_session_attrs",
        Some(TargetSessionAttrs::Any),
        &[
            ("any", Some(TargetSessionAttrs::Any)),
            // A read-only primary could not be migrated, so the driver's stricter check is right.
            ("primary", Some(TargetSessionAttrs::ReadWrite)),
            ("read-write", Some(TargetSessionAttrs::ReadWrite)),
            ("read-only", Some(TargetSessionAttrs::ReadOnly)),
            ("standby", None),
            ("prefer-standby", None),
        ],
        "any, read-write, primary or read-only",
    )?;
    let Some(attributes) = attributes else {
        return Err(parameters
            .unsupported("target_session_attrs", "migrations need the primary, not a standby"));
    };
    let channel_binding = parameters.choice(
        "channel_binding",
        ChannelBinding::Prefer,
        &[
            ("disable", ChannelBinding::Disable),
            ("prefer", ChannelBinding::Prefer),
            ("require", ChannelBinding::Require),
        ],
        "disable, prefer or require",
    )?;
    let load_balancing = parameters.choice(
        "load_balance_hosts",
        LoadBalanceHosts::Disable,
        &[("disable", LoadBalanceHosts::Disable), ("random", LoadBalanceHosts::Random)],
        "disable or random",
    )?;
    if let Some(encoding) = parameters.given("client_encoding")
        && !matches!(
            encoding.to_lowercase().replace(['-', '_'], "").as_str(),
            "utf8" | "unicode" | "auto"
        )
    {
        warnings.push(format!(
            "ignored client_encoding '{}' ({}): pricesync uses UTF-8",
            encoding.escape_debug(),
            parameters.origin("client_encoding")
        ));
    }
    config
        .target_session_attrs(attributes)
        .channel_binding(channel_binding)
        .load_balance_hosts(load_balancing);
    Ok(())
}
