//! Finds out whether another tenant has a value that a new or renamed one would get.

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::admin::TenantAdmin;
use super::catalog::PostgresCatalog;
use super::change::ChangeError;
use crate::domain::catalog::{CatalogError, Taken};
use crate::domain::tenant::{Hostname, NewTenant, Tenant};
use crate::postgres::connection::catalog_sql::{Tables, id_literal, select_missing};
use crate::postgres::connection::session::Session;
use crate::postgres::connection::sql_file::filled;

/// The change for which values must be free.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NewValues<'a> {
    /// A new schema is created.
    Create,
    /// The schema exists.
    Adopt,
    /// This tenant gets other names; those of tenants in the trash must be free too.
    Rename(&'a Tenant),
}

impl PostgresCatalog {
    /// Returns an error if another tenant has the slug, schema or a host, ignoring case. Runs in the
    /// session's transaction.
    pub(crate) async fn find_conflict(
        &self,
        session: &Session,
        new: &NewTenant,
        values: NewValues<'_>,
    ) -> Result<Option<CatalogError>, Error> {
        let Tables { rows, hosts, .. } = self.tables();
        let literal = |text: &str| escape_literal(text);
        let (old, own_schema) = match values {
            NewValues::Create => (None, ""),
            NewValues::Adopt => (None, new.schema.as_str()),
            NewValues::Rename(old) => (Some(old), old.schema.as_str()),
        };
        let is_other =
            old.map_or("true".to_owned(), |old| format!("t.id <> {}", id_literal(&old.id)));
        let forms = new.hostnames.iter().flat_map(spellings);
        let new_hosts: Vec<String> = forms.map(|host| literal(&host)).collect();
        let values = [
            ("{rows}", rows.clone()),
            ("{hosts}", hosts.clone()),
            ("{slug}", literal(new.slug.as_str())),
            ("{schema}", literal(new.schema.as_str())),
            ("{own_schema}", literal(own_schema)),
            ("{new_hosts}", new_hosts.join(",")),
            ("{is_other}", is_other),
            ("{slug_changes}", old.is_none_or(|old| old.slug != new.slug).to_string()),
            ("{schema_changes}", old.is_none_or(|old| old.schema != new.schema).to_string()),
        ];
        let mut sql = filled(include_str!("sql/conflict.sql"), &values);
        if old.is_some() && has_trash(session).await? {
            sql += &filled(include_str!("sql/conflict_in_trash.sql"), &values);
        }
        // Not through `read`, which starts a transaction of its own.
        let rows = session.rows(&format!("{sql} ORDER BY 1")).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        Ok(Some(CatalogError::AlreadyExists {
            what: match row.text(0)? {
                "1" => Taken::Slug,
                "2" => Taken::Schema,
                _ => Taken::Hostname,
            },
            value: row.text(1)?.to_owned(),
            owner: row.text(2)?.to_owned(),
        }))
    }
}

impl TenantAdmin {
    /// Adds to an [`CatalogError::AlreadyExists`] error that its owner is being dropped, if so.
    pub(crate) async fn describe_owner(&self, error: ChangeError) -> ChangeError {
        let ChangeError::Catalog(CatalogError::AlreadyExists { what, value, mut owner }) = error
        else {
            return error;
        };
        let column = match what {
            Taken::Slug => Some("slug"),
            Taken::Schema => Some("schema_name"),
            Taken::Hostname => None,
        };
        if let Some(column) = column {
            let rows = &self.tables().rows;
            let sql = format!(
                "SELECT FROM ({}) m (schema_name, dropping) JOIN {rows} t ON t.schema_name = m.schema_name WHERE m.dropping AND t.{column} = {}",
                select_missing(rows),
                escape_literal(&value)
            );
            let dropping = self.read(async |session| session.read(&sql).await).await;
            if dropping.is_ok_and(|rows| !rows.is_empty()) {
                owner += ", which is being dropped";
            }
        }
        CatalogError::AlreadyExists { what, value, owner }.into()
    }
}

/// Returns the forms in which a host may be stored.
pub(super) fn spellings(host: &Hostname) -> impl Iterator<Item = String> {
    std::iter::once(host.to_string()).chain(host.unicode())
}

async fn has_trash(session: &Session) -> Result<bool, Error> {
    let sql = "SELECT has_table_privilege(to_regclass('pricesync.trash'), 'SELECT')";
    Ok(session.rows(sql).await?.first().is_some_and(|row| row.is_true(0)))
}
