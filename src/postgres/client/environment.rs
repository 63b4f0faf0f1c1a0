//! The environment variables that connect a client program to one tenant.

use std::ffi::OsString;
use std::fmt::Write as _;

use crate::domain::schema_name::SchemaName;
use crate::postgres::connection::conninfo::ConnectOptions;

/// The connection of client programs, without the tenant.
#[derive(Clone, Debug)]
pub struct TenantEnvironment {
    /// The database of the tenants.
    pub options: ConnectOptions,
    /// The schemas behind the tenant's own in `search_path`.
    pub search_path: Vec<SchemaName>,
}

impl TenantEnvironment {
    /// Returns the variables for a tenant: libpq's, `DATABASE_URL`, `PRICESYNC_TENANT` and
    /// `PRICESYNC_SCHEMA`. A password is only in `PGPASSWORD`.
    pub fn variables(
        &self,
        tenant: &str,
        schema: &SchemaName,
        read_only: bool,
    ) -> Vec<(&'static str, OsString)> {
        let mut variables = self.options.child_environment();
        variables.retain(|(name, _)| *name != "PGOPTIONS");
        let options = self.server_options(schema, read_only);
        variables.push(("DATABASE_URL", self.options.url(&options).into()));
        variables.push(("PGOPTIONS", options.into()));
        variables.push(("PRICESYNC_TENANT", tenant.into()));
        variables.push(("PRICESYNC_SCHEMA", schema.as_str().into()));
        variables
    }

    /// Returns `search_path` and the transaction mode as command-line options of the server: unlike
    /// settings made by a statement, they survive `RESET` and `\c`.
    pub fn server_options(&self, schema: &SchemaName, read_only: bool) -> String {
        let mut path = schema.quoted().to_string();
        for schema in &self.search_path {
            let _ = write!(path, ", {}", schema.quoted());
        }
        let mut options = self
            .options
            .child_environment()
            .into_iter()
            .find(|(name, _)| *name == "PGOPTIONS")
            .map(|(_, value)| value.to_string_lossy().into_owned() + " ")
            .unwrap_or_default();
        let _ = write!(options, "-c search_path={}", escaped(&path));
        if read_only {
            options.push_str(" -c default_transaction_read_only=on");
        }
        options
    }
}

/// Escapes spaces and backslashes for `options` (manual section 34.1.2).
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace(' ', "\\ ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::connection::conninfo::Environment;

    #[test]
    fn the_search_path_is_quoted_for_sql_and_escaped_for_the_server() {
        let environment = Environment::from_pairs::<&str, &str>([]);
        let url = "postgresql://app:secret@db/x?options=-cwork_mem%3D1MB";
        let environment = TenantEnvironment {
            options: ConnectOptions::resolve(Some(url), &environment).expect("fine"),
            search_path: vec![SchemaName::public()],
        };
        let schema = SchemaName::parse("tenant a\\b\"c").expect("legal");
        let options = "-cwork_mem=1MB -c search_path=\"tenant\\ a\\\\b\"\"c\",\\ \"public\" -c default_transaction_read_only=on";
        assert_eq!(environment.server_options(&schema, true), options);
        let variables = environment.variables("x", &schema, true);
        let of = |name: &str| {
            let found = variables.iter().filter(|(key, _)| *key == name);
            found.map(|(_, value)| value.to_str().expect("text")).collect::<Vec<_>>()
        };
        assert_eq!(of("PGOPTIONS"), [options]);
        assert_eq!(of("PGPASSWORD"), ["secret"]);
        assert!(!of("DATABASE_URL")[0].contains("secret"));
        assert_eq!(of("PRICESYNC_SCHEMA"), ["tenant a\\b\"c"]);
    }
}
