//! `--tenant` of the commands for one tenant, and the names and hosts of a new one.

use std::path::PathBuf;

use crate::domain::tenant::Hostname;
use crate::error::{Exit, Failure};

/// `--tenant`, exactly one.
#[derive(clap::Args, Debug)]
pub(crate) struct TenantArg {
    /// The tenant: its exact slug, schema or host
    #[arg(long, short = 't', value_name = "TENANT")]
    pub(crate) tenant: String,
}

/// `--config` again, without its short form, for commands where `-c` is SQL.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct ConfigWithoutShort {
    /// Configuration file
    #[arg(long, id = "config", value_name = "FILE", hide = true)]
    _config: Option<PathBuf>,
}

/// Checks the display name of a tenant.
///
/// # Errors
///
/// Exit 7 for an empty name or one with control characters.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    let why = if name.trim().is_empty() {
        "the name may not be empty"
    } else if name.chars().any(char::is_control) {
        "the name contains a control character"
    } else {
        return Ok(());
    };
    Err(Failure::words(Exit::Refused, why))
}

/// Parses host names.
///
/// # Errors
///
/// Exit 7 for an invalid host, and for one that is given twice.
pub(crate) fn parse_hosts(hosts: &[String]) -> Result<Vec<Hostname>, Failure> {
    let mut parsed = Vec::with_capacity(hosts.len());
    for host in hosts {
        let host = Hostname::parse(host).map_err(|error| Failure::new(Exit::Refused, error))?;
        if parsed.contains(&host) {
            let words = format!("host '{host}' is given twice");
            return Err(Failure::words(Exit::Refused, words));
        }
        parsed.push(host);
    }
    Ok(parsed)
}
