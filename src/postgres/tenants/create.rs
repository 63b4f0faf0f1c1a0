//! Creates a tenant: row, hosts, schema, migrations and history in one transaction.

use std::time::Duration;

use futures_util::future::{join3, join4};
use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::catalog::{PostgresCatalog, catalog_error, database_error};
use crate::domain::applied::Applied;
use crate::domain::applied::AppliedScript;
use crate::domain::catalog::{CatalogError, Taken};
use crate::domain::schema_name::SchemaName;
use crate::domain::script::Scope;
use crate::domain::sqlstate;
use crate::domain::target::Target;
use crate::domain::tenant::{NewTenant, Tenant};
use crate::migrations::MigrationSet;
use crate::migrations::{Script, Transaction};
use crate::postgres::bookkeeping;
use crate::postgres::connection::catalog_sql::Tables;
use crate::postgres::connection::options::{EngineOptions, RECONNECT_TIMEOUT};
use crate::postgres::connection::server_error::{
    error_in, is_connection_lost, server_error, sqlstate_of,
};
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::migrate::refinery;
use crate::postgres::migrate::schema::jittered;
use crate::postgres::migrate::template::{self, Applying, Kept, Template, Unfit};
use crate::postgres::transaction::batch::{Batch, Ending, WorkError, Worked};
use crate::postgres::transaction::commit::was_committed;
use crate::postgres::transaction::escape_guard::{Touched, seen_by_others};
use crate::postgres::transaction::ledger;
use crate::postgres::transaction::open::{Opened, Opening, begin, interpret, probe};
use crate::service::event::Progress;
use crate::service::failure::{MigrateError, ServerError};

/// A tenant that was created.
#[derive(Clone, Debug)]
pub struct Created {
    /// The tenant.
    pub tenant: Tenant,
    /// What its schema got.
    pub applied: Vec<AppliedScript>,
    /// How many scripts are left: those from the first one on that runs without a transaction.
    pub left: usize,
    /// Whether [`PostgresCatalog::write_template`] would make the next one cheaper.
    pub lacks_template: bool,
}

/// Why a tenant was not created; nothing of it is there.
#[derive(Debug)]
pub enum CreateError {
    /// The catalog refused it.
    Catalog(CatalogError),
    /// A migration failed.
    Migrate(Box<MigrateError>),
}

impl CreateError {
    /// Returns whether another session was in the way, so that it may work later.
    #[must_use]
    pub fn is_contention(&self) -> bool {
        match self {
            Self::Catalog(error) => error.is_contention(),
            Self::Migrate(error) => match &**error {
                MigrateError::Script { error, .. } | MigrateError::Database { error, .. } => {
                    error.is_contention()
                }
                _ => false,
            },
        }
    }
}

impl From<CatalogError> for CreateError {
    fn from(error: CatalogError) -> Self {
        Self::Catalog(error)
    }
}

/// How a tenant is made.
struct Making<'a> {
    new: &'a NewTenant,
    set: Option<&'a MigrationSet>,
    options: &'a EngineOptions,
    template: Option<&'a Template>,
    keeps_ledger: bool,
    progress: &'a Progress,
}

impl PostgresCatalog {
    /// Creates a tenant with everything, or nothing. Without a set the schema stays empty.
    ///
    /// # Errors
    ///
    /// [`CreateError`]; what was begun is rolled back.
    pub async fn create(
        &self,
        new: &NewTenant,
        set: Option<&MigrationSet>,
        options: &EngineOptions,
        progress: &Progress,
    ) -> Result<Created, CreateError> {
        // The tenant can do without the ledger; the next survey takes its schema up.
        let keeps_ledger = bookkeeping::ensure(self.database(), options).await.is_ok();
        let session = self.session().await?;
        let kept = match set.filter(|_| options.templates) {
            // Whatever is wrong with it, the files are there.
            Some(set) => self.kept(&session, set, options).await.ok(),
            None => None,
        };
        let lacks_template = kept.as_ref().is_some_and(|kept| kept.compiled.is_none());
        let template = kept.as_ref().and_then(Kept::template);
        drop(session);
        let making = Making {
            new,
            set,
            options,
            template,
            keeps_ledger,
            progress,
        };
        match unless_locked(options, async || self.create_once(&making).await).await {
            Ok(created) => Ok(Created {
                lacks_template,
                ..created
            }),
            Err(CreateError::Catalog(error)) => {
                Err(CreateError::Catalog(self.name_owner(error).await))
            }
            Err(error) => Err(error),
        }
    }

    /// Has it done by the template, else file by file.
    async fn create_once(&self, making: &Making<'_>) -> Result<Created, CreateError> {
        let misfits = |error: &CreateError| {
            let is_template_s = matches!(error, CreateError::Migrate(error) if !matches!(**error, MigrateError::InDoubt { .. }));
            is_template_s && !error.is_contention()
        };
        let result = self.create_alone(making).await;
        if making.template.is_none() || !result.as_ref().is_err_and(misfits) {
            return result;
        }
        let by_files = Making {
            template: None,
            ..*making
        };
        self.create_alone(&by_files).await
    }

    async fn create_alone(&self, making: &Making<'_>) -> Result<Created, CreateError> {
        let session = self.session().await?;
        let result = self.create_in(&session, making).await;
        if result.is_err() {
            // Closing the connection rolls back, whatever state it is in.
            session.discard();
        }
        result
    }

    /// Writes the template that makes the next tenant cheaper.
    ///
    /// # Errors
    ///
    /// Why there is none, in words; nothing is lost by it.
    pub async fn write_template(
        &self,
        set: &MigrationSet,
        options: &EngineOptions,
    ) -> Result<(), String> {
        let said = |error: Error| server_error(&error).to_string();
        let session = self.session().await.map_err(|error| error.to_string())?;
        let kept = self.kept(&session, set, options).await.map_err(said)?;
        drop(session);
        if let Some(compiled) = kept.compiled {
            return compiled.map(drop);
        }
        let compiled = template::compile(self.database(), options, &template::together(set))
            .await
            .map_err(|error| error.to_string())?;
        template::store(self.database(), options, &kept.key, &compiled)
            .await
            .map_err(|error| error.to_string())?;
        compiled.map(drop)
    }

    async fn kept(
        &self,
        session: &Session,
        set: &MigrationSet,
        options: &EngineOptions,
    ) -> Result<Kept, Error> {
        let role = &self.database().facts().role;
        template::load(session, options, role, &template::together(set)).await
    }

    async fn create_in(
        &self,
        session: &Session,
        making: &Making<'_>,
    ) -> Result<Created, CreateError> {
        let Making {
            new,
            set,
            options,
            template,
            keeps_ledger,
            progress,
        } = *making;
        let target = Target {
            schema: new.schema.clone(),
            label: new.slug.as_str().to_owned(),
            scope: Scope::Tenant,
        };
        let failed = |error: Error| CreateError::Catalog(catalog_error(&error));
        let creation = format!(
            "CREATE SCHEMA {}; {}",
            new.schema.quoted(),
            probe(&new.schema, &options.history_table)
        );
        let opening = begin(options, &target);
        // All sent before the first is answered. What is taken is said in better words by the
        // look at it than by whatever fails because of it.
        let (reset, begun, conflict, made) = join4(
            session.client().simple_query("DISCARD ALL"),
            session.rows(&opening),
            self.conflict(session, new, false),
            session.rows(&creation),
        )
        .await;
        reset.map_err(failed)?;
        begun.map_err(failed)?;
        if let Some(conflict) = conflict.map_err(failed)? {
            return Err(conflict.into());
        }
        let taken =
            |error: &Error| CreateError::Catalog(taken_meanwhile(error, new, self.tables()));
        let rows = made.map_err(|error| taken(&error))?;
        let Opening::Ready(opened) = interpret(&rows, &new.schema) else {
            return Err(CatalogError::SchemaMissing(new.schema.clone()).into());
        };
        let scripts: Vec<&Script> = set.map_or_else(Vec::new, |set| set.scripts().iter().collect());
        let together = scripts
            .iter()
            .take_while(|script| script.transaction == Transaction::Inside)
            .count();
        let mut applied = Vec::new();
        if set.is_some() {
            let worked = if let Some(template) = template {
                let applying = Applying {
                    template,
                    scripts: &scripts[..together],
                    schema: &new.schema,
                    options,
                    may_be_filled: false,
                    // Its seal fits; comparing what one schema became costs more than making it.
                    proven: true,
                };
                // The guard looked on when the template was made.
                let worked = applying
                    .run(session, &opened, &Ending::Unguarded, progress)
                    .await;
                worked.map_err(|unfit| {
                    let error = match unfit {
                        Unfit::Server(error) => server_error(&error),
                        Unfit::Identity | Unfit::Different | Unfit::NoLedger => {
                            ServerError::default()
                        }
                    };
                    let doing = "applying the template".to_owned();
                    CreateError::Migrate(Box::new(MigrateError::Database { doing, error }))
                })?
            } else {
                let create_history = refinery::create_history(&new.schema, &options.history_table);
                let first = format!("{}; {create_history}", refinery::ALONE);
                let mut batch = Batch::new(Some(first.trim_end_matches(';')));
                for script in &scripts[..together] {
                    batch.push(&new.schema, &options.history_table, script, false);
                }
                let worked = batch
                    .run(
                        session,
                        &opened,
                        &new.schema,
                        &Ending::Guarded(options.references.clone()),
                        progress,
                    )
                    .await;
                worked.map_err(|error| CreateError::Migrate(Box::new(explain(error, &scripts))))?
            };
            let Worked {
                applied: done,
                touched,
                ..
            } = worked;
            self.stays_inside(&new.schema, &touched, &scripts[..together])
                .await?;
            applied = done;
        }
        // The rows come last, so that the guard sees nothing of ours. If one is refused, the
        // server answers COMMIT with a rollback.
        let history: Vec<Applied> = scripts[..together]
            .iter()
            .map(|script| script.id.claimed())
            .collect();
        let note = if keeps_ledger && set.is_some() {
            ledger::note(&new.schema, &options.history_table, &history)
        } else {
            String::new()
        };
        let insert = self.tables().insert(new);
        let id = self.commit(session, new, &opened, &insert, &note).await?;
        let tenant = listed(id, new);
        Ok(Created {
            tenant,
            applied,
            left: scripts.len() - together,
            lacks_template: false,
        })
    }

    /// Refuses what touched something outside the schema.
    pub(crate) async fn stays_inside(
        &self,
        schema: &SchemaName,
        touched: &Touched,
        scripts: &[&Script],
    ) -> Result<(), CreateError> {
        let mut outside = touched.outside.clone();
        if touched.is_open() {
            let other = self.session().await?;
            let seen = seen_by_others(&other, schema, touched).await;
            outside.extend(seen.map_err(|error| CreateError::Catalog(catalog_error(&error)))?);
        }
        if outside.is_empty() {
            return Ok(());
        }
        let error = MigrateError::LeftSchema {
            scripts: scripts.iter().map(|script| script.id.reference()).collect(),
            touched: outside,
        };
        Err(CreateError::Migrate(Box::new(error)))
    }

    /// Inserts the rows, notes what the history says, and commits; returns the tenant's id.
    pub(crate) async fn commit(
        &self,
        session: &Session,
        new: &NewTenant,
        opened: &Opened,
        insert: &str,
        note: &str,
    ) -> Result<i64, CreateError> {
        // The constraints of the catalog's tables are checked when they say, whatever ran before.
        let insert = format!("SET CONSTRAINTS ALL DEFERRED; {insert}");
        let all = join3(
            session.rows(&insert),
            session.client().simple_query(note),
            session.client().simple_query("COMMIT"),
        );
        let (inserted, noted, committed) = self.committing(opened.pid, all).await;
        match (inserted, noted, committed) {
            (Ok(rows), Ok(_), Ok(_)) => Ok(id_in(&rows)),
            (Err(error), _, _) | (_, Err(error), _) | (_, _, Err(error)) => {
                if is_connection_lost(&error) {
                    return self
                        .find_out(new, &opened.identity.transaction, &error)
                        .await;
                }
                Err(CreateError::Catalog(taken_meanwhile(
                    &error,
                    new,
                    self.tables(),
                )))
            }
        }
    }

    /// COMMIT was sent and not answered.
    async fn find_out(
        &self,
        new: &NewTenant,
        transaction: &str,
        error: &Error,
    ) -> Result<i64, CreateError> {
        let unknown = |said| {
            CreateError::Migrate(Box::new(MigrateError::InDoubt {
                doing: format!("creating tenant '{}'", new.slug),
                error: said,
            }))
        };
        if !was_committed(self.database(), transaction, server_error(error))
            .await
            .map_err(unknown)?
        {
            return Err(CreateError::Catalog(database_error(server_error(error))));
        }
        let session = self
            .database()
            .session(RECONNECT_TIMEOUT)
            .await
            .map_err(unknown)?;
        let sql = format!(
            "SELECT id FROM {} t WHERE slug = {} AND schema_name = {}",
            self.tables().rows,
            escape_literal(new.slug.as_str()),
            escape_literal(new.schema.as_str())
        );
        match session.read(&sql).await {
            Ok(rows) => Ok(id_in(&rows)),
            Err(error) => Err(unknown(server_error(&error))),
        }
    }
}

pub(crate) fn id_in(rows: &[Row]) -> i64 {
    rows.first()
        .and_then(|row| row.optional(0)?.parse().ok())
        .unwrap_or_default()
}

/// The tenant as the catalog has it now.
pub(crate) fn listed(id: i64, new: &NewTenant) -> Tenant {
    Tenant {
        id,
        name: new.name.clone(),
        slug: new.slug.clone(),
        schema: new.schema.clone(),
        hostnames: new.hostnames.clone(),
        created_at: None,
    }
}

/// Somebody else took the name between our look and our insert.
pub(crate) fn taken_meanwhile(error: &Error, new: &NewTenant, tables: &Tables) -> CatalogError {
    let code = sqlstate_of(error);
    let said = error.as_db_error();
    let constraint = said.and_then(|said| said.constraint()).unwrap_or_default();
    // Such as: Key (lower(slug::text))=(acme) already exists.
    let key = said.and_then(|said| said.detail()).unwrap_or_default();
    let key = key.split(")=(").next().unwrap_or_default();
    let (what, value) = match code {
        Some(sqlstate::DUPLICATE_SCHEMA) => (Taken::Schema, new.schema.as_str()),
        Some(sqlstate::UNIQUE_VIOLATION)
            if constraint.contains("nspname") || tables.is_schema_key(key) =>
        {
            (Taken::Schema, new.schema.as_str())
        }
        Some(sqlstate::UNIQUE_VIOLATION) if tables.is_slug_key(key) => {
            (Taken::Slug, new.slug.as_str())
        }
        Some(sqlstate::UNIQUE_VIOLATION) if tables.is_host_key(key) => (
            Taken::Hostname,
            new.hostnames.first().map_or("", |host| host.as_str()),
        ),
        Some(sqlstate::NOT_NULL_VIOLATION) => {
            let column = said.and_then(|said| said.column()).unwrap_or_default();
            return CatalogError::ColumnRequired {
                column: column.to_owned(),
                message: server_error(error).to_string(),
            };
        }
        Some(code) if code.starts_with("22") || code.starts_with("23") => {
            let said = server_error(error);
            let detail = said.detail.as_ref();
            let detail = detail.map_or_else(String::new, |detail| format!(": {detail}"));
            return CatalogError::RowRejected(format!("{said}{detail}"));
        }
        _ => return catalog_error(error),
    };
    CatalogError::AlreadyExists {
        what,
        value: value.to_owned(),
        owner: "another session, just now".to_owned(),
    }
}

/// Has a tenant made, again where another session's lock was in the way: nobody else can be in a schema
/// that is not there yet, but in the tables of the catalog and in those that files refer to.
pub(crate) async fn unless_locked(
    options: &EngineOptions,
    make: impl AsyncFn() -> Result<Created, CreateError>,
) -> Result<Created, CreateError> {
    let mut attempt = 0;
    loop {
        let mut error = match make().await {
            Err(error) if error.is_contention() => error,
            done => return done,
        };
        attempt += 1;
        if attempt > options.lock_retries {
            if let CreateError::Migrate(error) = &mut error
                && let MigrateError::Script { attempts, .. } = &mut **error
            {
                *attempts = attempt;
            }
            return Err(error);
        }
        tokio::time::sleep(jittered(
            Duration::from_millis(100) * 2_u32.pow(attempt.min(6)),
        ))
        .await;
    }
}

/// What failed, in one attempt.
pub(crate) fn explain(error: WorkError, scripts: &[&Script]) -> MigrateError {
    match error {
        WorkError::Script(index, place, error) => MigrateError::Script {
            script: scripts[index].id.reference(),
            file: scripts[index].path.display().to_string(),
            place,
            error: error_in(&scripts[index].text, &error),
            blockers: Vec::new(),
            attempts: 1,
            rolled_back: true,
        },
        WorkError::Identity(index, why) => MigrateError::LeftTransaction {
            scripts: vec![scripts[index].id.reference()],
            why,
        },
        WorkError::NoLedger => unreachable!("it is not asked here"),
        WorkError::Ours(error) => MigrateError::Database {
            doing: "recording migrations".to_owned(),
            error: server_error(&error),
        },
    }
}
