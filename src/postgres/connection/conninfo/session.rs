//! What the session must be like (manual section 34.1.2).

use tokio_postgres::config::{ChannelBinding, LoadBalanceHosts, TargetSessionAttrs};

use super::error::ConnInfoError;
use super::words::Words;

/// Demands on the session and the order of hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) attributes: TargetSessionAttrs,
    pub(super) channel_binding: ChannelBinding,
    pub(super) load_balancing: LoadBalanceHosts,
}

impl Session {
    /// Reads the words and warns about an encoding that is not used.
    pub(super) fn read(words: &Words, warnings: &mut Vec<String>) -> Result<Self, ConnInfoError> {
        let attributes = words.choice(
            "target_session_attrs",
            Some(TargetSessionAttrs::Any),
            &[
                ("any", Some(TargetSessionAttrs::Any)),
                // A primary that refuses writes could not be migrated, so the driver's
                // stricter question serves.
                ("primary", Some(TargetSessionAttrs::ReadWrite)),
                ("read-write", Some(TargetSessionAttrs::ReadWrite)),
                ("read-only", Some(TargetSessionAttrs::ReadOnly)),
                ("standby", None),
                ("prefer-standby", None),
            ],
            "any, read-write, primary or read-only",
        )?;
        let Some(attributes) = attributes else {
            return Err(words.unsupported(
                "target_session_attrs",
                "migrations need the primary, not a standby",
            ));
        };
        let channel_binding = words.choice(
            "channel_binding",
            ChannelBinding::Prefer,
            &[
                ("disable", ChannelBinding::Disable),
                ("prefer", ChannelBinding::Prefer),
                ("require", ChannelBinding::Require),
            ],
            "disable, prefer or require",
        )?;
        let load_balancing = words.choice(
            "load_balance_hosts",
            LoadBalanceHosts::Disable,
            &[
                ("disable", LoadBalanceHosts::Disable),
                ("random", LoadBalanceHosts::Random),
            ],
            "disable or random",
        )?;
        if let Some(encoding) = words.given("client_encoding")
            && !matches!(
                encoding.to_lowercase().replace(['-', '_'], "").as_str(),
                "utf8" | "unicode" | "auto"
            )
        {
            warnings.push(format!(
                "ignored client_encoding '{}' ({}): pricesync speaks UTF-8",
                encoding.escape_debug(),
                words.origin("client_encoding")
            ));
        }
        Ok(Self {
            attributes,
            channel_binding,
            load_balancing,
        })
    }
}
