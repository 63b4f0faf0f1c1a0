//! Creates a superuser: a row in the tenant's user table.

use std::collections::HashMap;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::admin::TenantAdmin;
use super::context::{TenantContext, TenantError};
use crate::domain::schema_name::QuotedIdentifier;
use crate::domain::sqlstate;
use crate::domain::tenant::Tenant;
use crate::postgres::connection::server_error::{server_error, sqlstate_of};
use crate::postgres::connection::session::Row;
use crate::postgres::transaction::lock_monitor::LockMonitor;
use crate::postgres::transaction::retry::{GaveUp, TxError};
use crate::service::failure::ServerError;
use crate::settings::UserColumns;

/// The values of a new superuser.
#[derive(Clone, Copy, Debug)]
pub struct NewUser<'a> {
    /// The login name.
    pub username: &'a str,
    /// The email address; may be empty.
    pub email: &'a str,
    /// The hash of the password.
    pub password_hash: &'a str,
}

/// Why a user was not created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// A user with this name exists, ignoring case.
    #[error("user '{0}' already exists")]
    Taken(String),
    /// The table does not exist in the tenant's schema.
    #[error("relation \"{0}\" does not exist (42P01)")]
    NoTable(String),
    /// The column does not exist.
    #[error("table {table} has no column \"{column}\"")]
    NoColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// A constraint or a type of the table rejects the row.
    #[error("{0}{detail}", detail = .0.detail.as_ref().map_or_else(String::new, |detail| format!(": {detail}")))]
    Refused(ServerError),
    /// The server or the connection failed.
    #[error("{0}")]
    Database(ServerError),
    /// The tenant's transaction was not opened or not committed.
    #[error("{0}")]
    Context(TenantError),
    /// An interrupt ended it; the transaction is rolled back.
    #[error("interrupted")]
    Interrupted,
}

impl From<Error> for UserError {
    fn from(error: Error) -> Self {
        Self::Database(server_error(&error))
    }
}

impl TenantAdmin {
    /// Creates a superuser in the tenant's user table.
    ///
    /// Optional columns that the table does not have are left out. Other text columns that are NOT
    /// NULL and have no default are set to the empty string.
    pub async fn create_superuser(
        &self,
        tenant: &Tenant,
        columns: &UserColumns,
        user: NewUser<'_>,
    ) -> Result<(), UserError> {
        let attempt = async |_| self.insert_user(tenant, columns, user).await;
        self.retry().run(|error| UserError::Database(server_error(error)), attempt).await
    }

    async fn insert_user(
        &self,
        tenant: &Tenant,
        columns: &UserColumns,
        user: NewUser<'_>,
    ) -> Result<(), TxError<UserError>> {
        let (retry, options) = (self.retry(), &self.options);
        let context = self.database().tenant(&tenant.schema, &options.search_path).await;
        let context = context.map_err(|error| TxError::Refused(UserError::Context(error)))?;
        let failed = |error| match error {
            UserError::Database(said) => TxError::of(said.clone(), UserError::Database(said)),
            error => TxError::Refused(error),
        };
        let opening = format!(
            "SET LOCAL lock_timeout TO {}; SELECT pg_catalog.pg_current_xact_id(), pg_catalog.pg_backend_pid()",
            options.lock_timeout.as_millis()
        );
        let rows = context.session().rows(&opening).await?;
        let cell = |column| rows.first().and_then(|row| row.optional(column)).unwrap_or_default();
        let pid = cell(1).parse().unwrap_or_default();
        let insert = insert(&context, tenant, columns, user);
        // Dropping the context rolls back.
        retry.until_cancelled(context.session(), insert).await?.map_err(failed)?;
        let interrupts = self.interrupts.clone();
        let mut monitor = LockMonitor::new(
            self.database(),
            pid,
            options.lock_timeout,
            &self.progress,
            interrupts,
        );
        match monitor.during_commit(context.commit()).await {
            Err(TenantError::InDoubt(cause)) => Err(TxError::InDoubt {
                transaction: cell(0).to_owned(),
                value: (),
                cause: Box::new(cause),
            }),
            ended => ended.map_err(|error| TxError::Refused(UserError::Context(error))),
        }
    }
}

impl From<GaveUp> for UserError {
    fn from(gave_up: GaveUp) -> Self {
        match gave_up {
            GaveUp::NotConnected(error) | GaveUp::Lost(error) | GaveUp::Unknown(error) => {
                Self::Database(error)
            }
            GaveUp::Cancelled => Self::Interrupted,
            GaveUp::Locked { .. } => unreachable!("no schema is locked"),
        }
    }
}

async fn insert(
    context: &TenantContext,
    tenant: &Tenant,
    columns: &UserColumns,
    user: NewUser<'_>,
) -> Result<(), UserError> {
    let name = QuotedIdentifier::new;
    let table = format!("{}.{}", tenant.schema.quoted(), name(&columns.table));
    let existing = existing_columns(context, tenant, columns, &table).await?;
    let username = escape_literal(user.username);
    let taken = format!(
        "SELECT {0} FROM {table} WHERE pg_catalog.lower({0}::pg_catalog.text) \
         OPERATOR(pg_catalog.=) pg_catalog.lower({username}::pg_catalog.text) LIMIT 1",
        name(&columns.username)
    );
    if let Some(taken) = context.session().rows(&taken).await?.first() {
        return Err(UserError::Taken(taken.text(0)?.to_owned()));
    }
    // Read before the INSERT: after a violation the transaction accepts no query.
    let indexes = unique_indexes(context, &table, &columns.username).await?;
    let mut values = vec![
        (columns.username.as_str(), username),
        (&columns.password, escape_literal(user.password_hash)),
    ];
    for (column, value) in [
        (&columns.email, escape_literal(user.email)),
        (&columns.is_superuser, "true".to_owned()),
        (&columns.is_staff, "true".to_owned()),
        (&columns.is_active, "true".to_owned()),
        (&columns.joined_at, "pg_catalog.now()".to_owned()),
    ] {
        if existing.contains_key(column) {
            values.push((column, value));
        }
    }
    let given: Vec<&str> = values.iter().map(|(column, _)| *column).collect();
    let required = existing
        .iter()
        .filter(|(column, required)| **required && !given.contains(&column.as_str()));
    values.extend(required.map(|(column, _)| (column.as_str(), "''".to_owned())));
    let (names, texts): (Vec<String>, Vec<String>) =
        values.into_iter().map(|(column, value)| (name(column).to_string(), value)).unzip();
    let sql = format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), texts.join(", "));
    match context.client().simple_query(&sql).await {
        Ok(_) => Ok(()),
        // Another session inserted the name meanwhile.
        Err(error)
            if sqlstate_of(&error) == Some(sqlstate::UNIQUE_VIOLATION)
                && error
                    .as_db_error()
                    .and_then(|db| db.constraint())
                    .is_some_and(|violated| indexes.iter().any(|index| index == violated)) =>
        {
            Err(UserError::Taken(user.username.to_owned()))
        }
        Err(error) => {
            let error = server_error(&error);
            let is_rejected = |code: &String| code.starts_with("23") || code.starts_with("22");
            Err(if error.sqlstate.as_ref().is_some_and(is_rejected) {
                UserError::Refused(error)
            } else {
                UserError::Database(error)
            })
        }
    }
}

/// Returns the columns of the user table, each with whether a text must be given, because there is neither
/// NULL nor a default.
async fn existing_columns(
    context: &TenantContext,
    tenant: &Tenant,
    columns: &UserColumns,
    table: &str,
) -> Result<HashMap<String, bool>, UserError> {
    let shown = format!("{}.{}", tenant.schema, columns.table);
    let sql = format!(
        "SELECT a.attname, a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND t.typcategory = 'S' \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
         WHERE a.attrelid = pg_catalog.to_regclass({})::pg_catalog.oid AND a.attnum > 0 AND NOT a.attisdropped",
        escape_literal(table)
    );
    let rows = context.session().rows(&sql).await?;
    if rows.is_empty() {
        return Err(UserError::NoTable(shown));
    }
    let column = |row: &Row| Ok((row.text(0)?.to_owned(), row.is_true(1)));
    let existing: Result<HashMap<String, bool>, Error> = rows.iter().map(column).collect();
    let existing = existing?;
    for column in [&columns.username, &columns.password] {
        if !existing.contains_key(column) {
            return Err(UserError::NoColumn { table: shown, column: column.clone() });
        }
    }
    Ok(existing)
}

/// Returns the unique indexes of a table that contain a column.
async fn unique_indexes(
    context: &TenantContext,
    table: &str,
    column: &str,
) -> Result<Vec<String>, UserError> {
    let sql = format!(
        "SELECT c.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid \
         WHERE i.indrelid = pg_catalog.to_regclass({})::pg_catalog.oid AND i.indisunique AND a.attname::pg_catalog.text = {}::pg_catalog.text \
         AND (a.attnum = ANY (i.indkey::pg_catalog.int2[]) OR EXISTS (SELECT FROM pg_catalog.pg_depend d \
         WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid AND d.objid = i.indexrelid \
         AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum::pg_catalog.int4))",
        escape_literal(table),
        escape_literal(column)
    );
    let rows = context.session().rows(&sql).await?;
    let name = |row: &Row| Ok(row.text(0)?.to_owned());
    rows.iter().map(name).collect()
}
