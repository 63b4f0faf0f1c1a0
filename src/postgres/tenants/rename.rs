//! Renames a tenant: its slug, its name, its schema, all in one transaction.

use crate::postgres::connection::options::EngineOptions;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::catalog::{PostgresCatalog, database_error};
use super::create::taken_meanwhile;
use super::drop::{DropError, under_lock};
use crate::domain::catalog::{CatalogError, Taken};
use crate::domain::schema_name::SchemaName;
use crate::domain::tenant::{NewTenant, Tenant};
use crate::postgres::connection::server_error::{
    is_connection_lost, is_worth_retrying, server_error,
};
use crate::postgres::connection::session::Session;
use crate::postgres::schema::name_references;
use crate::postgres::transaction::advisory_lock;
use crate::postgres::transaction::commit::was_committed;
use crate::postgres::transaction::open::lookup;

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// Why a transaction did not end.
pub(crate) enum Unfinished {
    /// It is not to be tried again.
    Refused(DropError),
    /// Another session has the lock of the schema with this oid.
    Busy(u32),
    /// The server's word, and the transaction's id where COMMIT was sent.
    Server(Error, Option<String>),
}

impl From<Error> for Unfinished {
    fn from(error: Error) -> Self {
        Self::Server(error, None)
    }
}

impl PostgresCatalog {
    /// Makes of a tenant what `new` says; hosts and further columns stay. The schema keeps its
    /// objects, its history and its place in the ledger. Where `leave_mentions` is not set,
    /// nothing may say the old schema's name as text.
    ///
    /// # Errors
    ///
    /// [`CatalogError::AlreadyExists`], [`CatalogError::NameReferenced`], [`CatalogError::SchemaMissing`];
    /// [`DropError::Locked`] when a migration holds the schema for longer than `lock_wait`.
    pub async fn rename(
        &self,
        tenant: &Tenant,
        new: &NewTenant,
        leave_mentions: bool,
        options: &EngineOptions,
    ) -> Result<(), DropError> {
        let work = async |session: &Session| {
            self.rename_in(session, tenant, new, leave_mentions, options)
                .await
        };
        self.in_one_transaction(new, options, work).await
    }

    /// Has one transaction done that gives a tenant its names, again where another session was in the
    /// way or the connection was lost, and waits for a schema that another run holds.
    pub(crate) async fn in_one_transaction(
        &self,
        new: &NewTenant,
        options: &EngineOptions,
        work: impl AsyncFn(&Session) -> Result<(), Unfinished>,
    ) -> Result<(), DropError> {
        let begun = Instant::now();
        let mut attempt = 0;
        loop {
            let session = self.session().await?;
            match work(&session).await {
                Ok(()) => return Ok(()),
                Err(Unfinished::Busy(oid)) => {
                    let waited = begun.elapsed();
                    if waited >= options.lock_wait {
                        let holder = advisory_lock::holder(&session, oid).await.ok().flatten();
                        return Err(DropError::Locked { holder, waited });
                    }
                }
                Err(Unfinished::Refused(error)) => {
                    // Closing the connection rolls back.
                    session.discard();
                    return Err(error);
                }
                Err(Unfinished::Server(error, in_doubt)) => {
                    session.discard();
                    if let Some(transaction) = &in_doubt {
                        let committed =
                            was_committed(self.database(), transaction, server_error(&error)).await;
                        if committed.map_err(database_error)? {
                            return Ok(());
                        }
                    }
                    attempt += 1;
                    let again = is_worth_retrying(&error) || is_connection_lost(&error);
                    if !again {
                        return Err(taken_meanwhile(&error, new, self.tables()).into());
                    }
                    if attempt > options.lock_retries {
                        return Err(if is_connection_lost(&error) {
                            database_error(server_error(&error)).into()
                        } else {
                            DropError::InUse(server_error(&error))
                        });
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn rename_in(
        &self,
        session: &Session,
        tenant: &Tenant,
        new: &NewTenant,
        leave_mentions: bool,
        options: &EngineOptions,
    ) -> Result<(), Unfinished> {
        let refused = |error: CatalogError| Unfinished::Refused(error.into());
        if let Some(oid) = under_lock(session, &tenant.schema, options).await? {
            return Err(Unfinished::Busy(oid));
        }
        // A name may be somebody else's by then.
        if session.rows(&self.owner(tenant).query).await?.is_empty() {
            return Err(refused(CatalogError::NotFound(tenant.slug.to_string())));
        }
        let here = format!(
            "SELECT n.oid, coalesce(has_table_privilege(to_regclass('pricesync.schema_state'), 'SELECT, UPDATE, DELETE'), false) \
             AND coalesce(has_table_privilege(to_regclass('pricesync.schema_failure'), 'SELECT, UPDATE, DELETE'), false) FROM pg_namespace n WHERE n.nspname = {}",
            escape_literal(tenant.schema.as_str())
        );
        let rows = session.rows(&here).await?;
        let Some(row) = rows.first() else {
            return Err(refused(CatalogError::SchemaMissing(tenant.schema.clone())));
        };
        let (oid, keeps_ledger) = (row.optional(0).unwrap_or_default(), row.is_true(1));
        if let Some(taken) = self.taken(session, tenant, new).await? {
            return Err(refused(taken));
        }
        let moves = new.schema != tenant.schema;
        if moves && !leave_mentions {
            let found = name_references::of_schema(session, &tenant.schema).await?;
            if !found.is_empty() {
                return Err(refused(CatalogError::NameReferenced(
                    tenant.schema.clone(),
                    found,
                )));
            }
        }
        let mut statements = vec![lookup(options).trim_end_matches("; ").to_owned()];
        statements.extend(self.tables().update(tenant, new));
        if moves {
            statements.push(format!(
                "ALTER SCHEMA {} RENAME TO {}",
                tenant.schema.quoted(),
                new.schema.quoted()
            ));
            if keeps_ledger {
                statements.push(follow(oid, &tenant.schema, &new.schema));
            }
        }
        statements.push("SELECT pg_current_xact_id()".to_owned());
        let rows = session.rows(&statements.join("; ")).await?;
        let transaction = rows
            .last()
            .and_then(|row| row.optional(0))
            .unwrap_or_default();
        let committed = session.rows("COMMIT").await;
        committed.map(drop).map_err(|error| {
            let in_doubt = is_connection_lost(&error).then(|| transaction.to_owned());
            Unfinished::Server(error, in_doubt)
        })
    }

    /// Finds what another has, in whatever case it is written, and who in the trash would want it back.
    async fn taken(
        &self,
        session: &Session,
        tenant: &Tenant,
        new: &NewTenant,
    ) -> Result<Option<CatalogError>, Error> {
        let rows = &self.tables().rows;
        let (slug, schema) = (
            escape_literal(new.slug.as_str()),
            escape_literal(new.schema.as_str()),
        );
        let (id, old) = (tenant.id, escape_literal(tenant.schema.as_str()));
        let (slug_changes, schema_changes) = (new.slug != tenant.slug, new.schema != tenant.schema);
        let mut sql = format!(
            "SELECT 1, t.slug, 'tenant ''' || t.slug || ''' (' || t.name || ')' FROM {rows} t WHERE lower(t.given_slug) = lower({slug}) AND t.id <> '{id}' AND {slug_changes} \
             UNION ALL SELECT 2, t.schema_name, 'tenant ''' || t.slug || '''' FROM {rows} t WHERE lower(t.schema_name) = lower({schema}) AND t.id <> '{id}' AND {schema_changes} \
             UNION ALL SELECT 2, n.nspname, 'an existing schema' FROM pg_namespace n \
             WHERE lower(n.nspname::text COLLATE pg_catalog.\"default\") = lower({schema}) AND n.nspname <> {old} AND {schema_changes}"
        );
        let trash = "SELECT has_table_privilege(to_regclass('pricesync.trash'), 'SELECT')";
        let there = session.rows(trash).await?;
        if there.first().is_some_and(|row| row.is_true(0)) {
            let _ = write!(
                sql,
                " UNION ALL SELECT 1, r.slug, 'a tenant in the trash (pricesync_trash_' || r.id || ')' FROM pricesync.trash r WHERE lower(r.slug) = lower({slug}) AND {slug_changes} \
                 UNION ALL SELECT 2, r.schema_name, 'a tenant in the trash (pricesync_trash_' || r.id || ')' FROM pricesync.trash r WHERE lower(r.schema_name) = lower({schema}) AND {schema_changes}"
            );
        }
        let rows = session.rows(&format!("{sql} ORDER BY 1")).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        Ok(Some(CatalogError::AlreadyExists {
            what: match row.text(0)? {
                "1" => Taken::Slug,
                _ => Taken::Schema,
            },
            value: row.text(1)?.to_owned(),
            owner: row.text(2)?.to_owned(),
        }))
    }
}

/// Has ledger and failures go on under the new name. A row that is not believed is not made
/// believable by it.
fn follow(oid: &str, old: &SchemaName, new: &SchemaName) -> String {
    let (old, new) = (escape_literal(old.as_str()), escape_literal(new.as_str()));
    format!(
        "DELETE FROM pricesync.schema_state WHERE schema_name = {new}; \
         UPDATE pricesync.schema_state SET schema_name = {new}, written_by = pg_current_xact_id() \
         WHERE schema_name = {old} AND schema_oid = {oid} AND xmin = written_by::xid; \
         DELETE FROM pricesync.schema_state WHERE schema_name = {old}; \
         DELETE FROM pricesync.schema_failure WHERE schema_name = {new}; \
         UPDATE pricesync.schema_failure SET schema_name = {new} WHERE schema_name = {old}"
    )
}
