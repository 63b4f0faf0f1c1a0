//! `--tenant` of the commands for one tenant, and the names and hosts of a new one.

use std::path::PathBuf;

use crate::domain::tenant::Hostname;
use crate::error::{Exit, Failure};
use crate::settings::CatalogLayout;

/// `--tenant`, exactly one.
#[derive(clap::Args, Debug)]
pub(crate) struct TenantArg {
    /// The tenant: its exact slug, schema or host
    #[arg(long, short = 't', value_name = "TENANT")]
    pub(crate) tenant: String,
}

/// `--set` of the commands that insert a tenant's row.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct SetArg {
    /// Set another column of the tenant table; repeatable
    #[arg(long = "set", value_name = "COLUMN=VALUE", value_parser = assignment)]
    columns: Vec<(String, String)>,
}

impl SetArg {
    /// Returns the columns and their values.
    ///
    /// # Errors
    ///
    /// Exit 2 for a column that is given twice, and for one that another option sets.
    pub(crate) fn columns(&self, layout: &CatalogLayout) -> Result<Vec<(String, String)>, Failure> {
        let refused = |why: String| Err(Failure::words(Exit::Usage, why));
        let tenants = &layout.tenants;
        for (position, (column, _)) in self.columns.iter().enumerate() {
            if self.columns[..position].iter().any(|(other, _)| other == column) {
                return refused(format!("--set {column} is given twice"));
            }
            let by_option = [
                (Some(&tenants.schema), "the schema"),
                (tenants.slug.as_ref(), "the slug"),
                (tenants.name.as_ref(), "the name"),
            ];
            let same = |(own, _): &(Option<&String>, &str)| *own == Some(column);
            if let Some((_, what)) = by_option.into_iter().find(same) {
                return refused(format!(
                    "--set {column}: the column holds {what}, which has an option of its own"
                ));
            }
        }
        Ok(self.columns.clone())
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((column, value)) if !column.is_empty() => Ok((column.to_owned(), value.to_owned())),
        _ => Err("expected COLUMN=VALUE, such as paid_until=2027-01-01".to_owned()),
    }
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
