//! What may be typed for a tenant's name and hosts, the same wherever a tenant gets them.

use crate::domain::tenant::Hostname;
use crate::error::{Exit, Failure};

/// Refuses a name that nobody could read.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    let why = if name.trim().is_empty() {
        "the name may not be empty"
    } else if name.chars().any(char::is_control) {
        "the name holds a control character"
    } else {
        return Ok(());
    };
    Err(Failure::words(Exit::Refused, why))
}

/// Reads hosts that were typed.
pub(crate) fn hosts(domains: &[String]) -> Result<Vec<Hostname>, Failure> {
    let mut hostnames = Vec::new();
    for domain in domains {
        let host = Hostname::parse(domain).map_err(|error| Failure::words(Exit::Refused, error))?;
        if hostnames.contains(&host) {
            let words = format!("host '{host}' is given twice");
            return Err(Failure::words(Exit::Refused, words));
        }
        hostnames.push(host);
    }
    Ok(hostnames)
}
