//! Makes a tenant of a schema that is there already: pending migrations, row and hosts in one
//! transaction, so that a failure leaves the schema as it was.

use crate::postgres::connection::options::EngineOptions;
use std::time::{Duration, Instant};

use tokio_postgres::Error;

use super::catalog::{PostgresCatalog, catalog_error, database_error};
use super::create::{CreateError, Created, explain, listed, unless_locked};
use crate::domain::catalog::CatalogError;
use crate::domain::plan::{Goal, Plan};
use crate::domain::script::Scope;
use crate::domain::sqlstate;
use crate::domain::target::Target;
use crate::domain::tenant::NewTenant;
use crate::migrations::{MigrationSet, Script, Transaction};
use crate::postgres::bookkeeping;
use crate::postgres::connection::server_error::server_error;
use crate::postgres::connection::session::Session;
use crate::postgres::migrate::refinery;
use crate::postgres::transaction::advisory_lock;
use crate::postgres::transaction::batch::{Batch, Ending};
use crate::postgres::transaction::history::qualified;
use crate::postgres::transaction::ledger;
use crate::postgres::transaction::open::{Opened, Opening, open};
use crate::service::event::Progress;
use crate::service::failure::{MigrateError, ServerError};

/// Pause between two attempts to get the schema's lock.
const PAUSE: Duration = Duration::from_millis(200);

impl PostgresCatalog {
    /// Gives an existing schema to a new tenant and applies what is pending by its history.
    /// Without a set it is registered as it is.
    ///
    /// # Errors
    ///
    /// [`CreateError`]; what was begun is rolled back, and the schema is as it was.
    pub async fn adopt(
        &self,
        new: &NewTenant,
        set: Option<&MigrationSet>,
        options: &EngineOptions,
        progress: &Progress,
    ) -> Result<Created, CreateError> {
        let keeps_ledger = bookkeeping::ensure(self.database(), options).await.is_ok();
        let options = EngineOptions {
            unlisted: true,
            ..options.clone()
        };
        let adopt = async || {
            let session = self.session().await?;
            let adopted = match self.enter(&session, new, &options).await {
                Ok(opened) => {
                    self.adopt_in(
                        &session,
                        &opened,
                        new,
                        set,
                        &options,
                        keeps_ledger,
                        progress,
                    )
                    .await
                }
                Err(error) => Err(error),
            };
            if adopted.is_err() {
                // Closing the connection rolls back.
                session.discard();
            }
            adopted
        };
        unless_locked(&options, adopt).await
    }

    /// Opens the transaction in the schema, under its lock.
    async fn enter(
        &self,
        session: &Session,
        new: &NewTenant,
        options: &EngineOptions,
    ) -> Result<Opened, CreateError> {
        let target = Target {
            schema: new.schema.clone(),
            label: new.slug.as_str().to_owned(),
            scope: Scope::Tenant,
        };
        let begun = Instant::now();
        let mut expect_history = true;
        loop {
            let opening = open(session, options, &target, expect_history).await;
            match opening.map_err(|error| {
                let doing = format!("reading the history of {}", new.schema);
                let error = server_error(&error);
                CreateError::Migrate(Box::new(MigrateError::Database { doing, error }))
            })? {
                Opening::Ready(opened) => return Ok(opened),
                Opening::Expect(history) => expect_history = history,
                Opening::Busy(oid) => {
                    let waited = begun.elapsed();
                    if waited >= options.lock_wait {
                        let holder = advisory_lock::holder(session, oid).await.ok().flatten();
                        let locked = MigrateError::Locked { holder, waited };
                        return Err(CreateError::Migrate(Box::new(locked)));
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Opening::NotUsable(role) => {
                    return Err(CreateError::Catalog(database_error(ServerError {
                        sqlstate: Some(sqlstate::INSUFFICIENT_PRIVILEGE.to_owned()),
                        message: format!("role '{role}' may not use schema '{}'", new.schema),
                        ..ServerError::default()
                    })));
                }
                Opening::NoSchema | Opening::NoTenant | Opening::Dropping => {
                    return Err(CatalogError::SchemaMissing(new.schema.clone()).into());
                }
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "each is known to the caller alone"
    )]
    async fn adopt_in(
        &self,
        session: &Session,
        opened: &Opened,
        new: &NewTenant,
        set: Option<&MigrationSet>,
        options: &EngineOptions,
        keeps_ledger: bool,
        progress: &Progress,
    ) -> Result<Created, CreateError> {
        let failed = |error: Error| CreateError::Catalog(catalog_error(&error));
        let refused = |error| CreateError::Migrate(Box::new(error));
        if let Some(conflict) = self.conflict(session, new, true).await.map_err(failed)? {
            return Err(conflict.into());
        }
        let (schema, table) = (&new.schema, &options.history_table);
        let mut history = match (&opened.history, set) {
            (Ok(rows), _) => rows.clone(),
            (Err(why), Some(_)) => {
                return Err(refused(MigrateError::DamagedHistory { why: why.clone() }));
            }
            (Err(_), None) => Vec::new(),
        };
        let scripts: Vec<&Script> = match set {
            Some(set) => {
                let plan = Plan::compare(set.ids(), &history, Goal::Latest)
                    .map_err(|drifts| refused(MigrateError::Drift { drifts }))?;
                let pending = plan.pending.iter();
                pending.map(|&index| &set.scripts()[index]).collect()
            }
            None => Vec::new(),
        };
        if history.is_empty() && !scripts.is_empty() {
            let sql = format!(
                "SELECT count(*) FROM pg_catalog.pg_depend WHERE refclassid = 'pg_catalog.pg_namespace'::regclass AND refobjid = {} \
                 AND NOT (classid = 'pg_catalog.pg_class'::regclass AND objid IS NOT DISTINCT FROM to_regclass({}))",
                opened.schema_oid,
                postgres_protocol::escape::escape_literal(&qualified(schema, table))
            );
            let rows = session.rows(&sql).await.map_err(failed)?;
            let objects = rows.first().and_then(|row| row.optional(0)?.parse().ok());
            if let Some(objects @ 1..) = objects {
                return Err(CatalogError::NoHistory(schema.clone(), objects).into());
            }
        }
        let together = scripts
            .iter()
            .take_while(|script| script.transaction == Transaction::Inside)
            .count();
        let now = &scripts[..together];
        let mut applied = Vec::new();
        if !now.is_empty() {
            let create_history = refinery::create_history(schema, table);
            let first = format!("{}; {create_history}", refinery::ALONE);
            let first = (!opened.has_history).then(|| first.trim_end_matches(';'));
            let mut batch = Batch::new(first);
            for script in now {
                batch.push(schema, table, script, false);
            }
            let worked = batch
                .run(
                    session,
                    opened,
                    schema,
                    &Ending::Guarded(options.references.clone()),
                    progress,
                )
                .await
                .map_err(|error| refused(explain(error, now)))?;
            self.stays_inside(schema, &worked.touched, now).await?;
            applied = worked.applied;
        }
        history.extend(now.iter().map(|script| script.id.claimed()));
        let note = if keeps_ledger && !history.is_empty() {
            ledger::note(schema, table, &history)
        } else {
            String::new()
        };
        let id = self
            .commit(session, new, opened, &self.tables().insert(new), &note)
            .await?;
        Ok(Created {
            tenant: listed(id, new),
            applied,
            left: scripts.len() - together,
            lacks_template: false,
        })
    }
}
