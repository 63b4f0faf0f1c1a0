//! Inserts the row and the hosts of a restored tenant.

use postgres_protocol::escape::escape_literal;
use serde_json::value::RawValue;
use tokio_postgres::Error;

use super::BackupError;
use super::restore::{Destination, RestoreTransaction};
use crate::domain::tenant::TenantId;
use crate::postgres::connection::catalog_sql::assignments;
use crate::postgres::tenants::new_row::{insert_error, inserted_id};

impl RestoreTransaction<'_> {
    /// Returns the tenant's id in the backup.
    pub(super) fn id_before(&self) -> Option<String> {
        let row: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(self.header.tenant.get()).ok()?;
        let quoted = &self.admin.tables().id;
        let name = quoted.get(1..quoted.len() - 1)?.replace("\"\"", "\"");
        match row.get(&name)? {
            serde_json::Value::String(id) => Some(id.clone()),
            id => Some(id.to_string()),
        }
    }

    /// Inserts the tenant and its hosts and returns its id.
    pub(super) async fn insert(&self) -> Result<TenantId, BackupError> {
        let sql = self.insert_statement().await?;
        let new = &self.destination.new;
        let rows = self.session.rows(&sql).await;
        let rows = rows
            .map_err(|error| BackupError::from(insert_error(&error, new, self.admin.tables())))?;
        Ok(inserted_id(&rows))
    }

    /// Returns the statement that inserts the tenant and its hosts and returns its id.
    async fn insert_statement(&self) -> Result<String, BackupError> {
        let reading = || BackupError::server("reading the tenant tables");
        let Destination { new, is_same_tenant, keeps_hosts } = self.destination;
        let tables = self.admin.tables();
        let row = format!("json_build_array({}::json)", literal(&self.header.tenant));
        let mut columns = self
            .columns(&tables.tenants, &tables.id, &row, *is_same_tenant)
            .await
            .map_err(reading())?;
        let mut values = tables.naming(new);
        for (column, value) in assignments(new) {
            if !columns.contains(&column) {
                columns.push(column.clone());
            }
            values.push((column, value));
        }
        if !is_same_tenant {
            let created = tables.created.iter();
            values.extend(created.map(|column| (column.clone(), "now()".to_owned())));
        }
        let tenant = format!(
            "{} FROM json_populate_recordset(NULL::{}, {row}) r RETURNING {} AS id",
            insert_into(&tables.tenants, &columns, &values),
            tables.tenants,
            tables.id
        );
        let hosts = match &tables.domains {
            Some(domains) if *keeps_hosts && !new.hostnames.is_empty() => {
                let rows = format!("{}::json", literal(&self.header.domains));
                let columns = self
                    .columns(&domains.table, &domains.id, &rows, *is_same_tenant)
                    .await
                    .map_err(reading())?;
                let owner = [(domains.tenant.clone(), "t.id".to_owned())];
                Some(format!(
                    "{} FROM t, json_populate_recordset(NULL::{}, {rows}) r",
                    insert_into(&domains.table, &columns, &owner),
                    domains.table
                ))
            }
            _ => tables.insert_hosts(new),
        };
        Ok(match hosts {
            Some(hosts) => format!("WITH t AS ({tenant}), d AS ({hosts}) SELECT id::text FROM t"),
            None => tenant,
        })
    }

    /// Returns the quoted columns of a table that the rows contain. Includes the id only with `keeps_ids`
    /// and if all ids are free and below the sequence's next value, which would otherwise collide later.
    async fn columns(
        &self,
        table: &str,
        id: &str,
        rows: &str,
        keeps_ids: bool,
    ) -> Result<Vec<String>, Error> {
        let (name, id_name) = (escape_literal(table), escape_literal(id));
        let sql = format!(
            "SELECT c.called FROM (SELECT a.attnum, a.attname::text AS name, format('\"%s\"', replace(a.attname, '\"', '\"\"')) AS called, \
             pg_get_serial_sequence({name}, a.attname::text) AS sequence FROM pg_attribute a \
             WHERE a.attrelid = {name}::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '') c \
             WHERE EXISTS (SELECT FROM json_array_elements({rows}) e, json_object_keys(e) k WHERE k = c.name) \
             AND (c.called <> {id_name} OR {keeps_ids} AND NOT EXISTS (SELECT FROM json_array_elements({rows}) e \
             WHERE EXISTS (SELECT FROM {table} o WHERE o.{id}::text = e->>c.name) OR CASE WHEN c.sequence IS NOT NULL \
             THEN (e->>c.name)::numeric > coalesce(pg_sequence_last_value(c.sequence::regclass), 0) END)) ORDER BY c.attnum"
        );
        let rows = self.session.rows(&sql).await?;
        rows.iter().map(|row| row.text(0).map(str::to_owned)).collect()
    }
}

/// Returns `INSERT INTO t (a, b) SELECT r.a, value`; all names are quoted.
fn insert_into(table: &str, columns: &[String], values: &[(String, String)]) -> String {
    let expressions: Vec<String> = columns
        .iter()
        .map(|column| match values.iter().find(|(name, _)| name == column) {
            Some((_, value)) => value.clone(),
            None => format!("r.{column}"),
        })
        .collect();
    format!(
        "INSERT INTO {table} ({}) OVERRIDING SYSTEM VALUE SELECT {}",
        columns.join(", "),
        expressions.join(", ")
    )
}

fn literal(json: &RawValue) -> String {
    escape_literal(json.get())
}
