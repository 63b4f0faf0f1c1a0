//! Drops a tenant's schema: looks first at what depends on it, lets go of shared tables
//! quickly, and takes large schemas in pieces.
//!
//! A drop that needs more than one transaction renames the schema in the first one, so that a
//! drop that was killed half-way shows everywhere: the row still names a schema that is not
//! there, and one named after the row's id is. Running it again finishes it.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Error;

use super::catalog::{PostgresCatalog, catalog_error, database_error};
pub use super::referencing_rows::Referrer;
use super::referencing_rows::{self, Reach};
use crate::domain::catalog::{CatalogError, Dependent};
use crate::domain::schema_name::{DROPPING_PREFIX, SchemaName};
use crate::domain::sqlstate;
use crate::domain::tenant::Tenant;
use crate::postgres::bookkeeping::UNCONFIRMED;
use crate::postgres::bookkeeping::run_log;
use crate::postgres::connection::options::{EngineOptions, RECONNECT_TIMEOUT, REPORT_INTERVAL};
use crate::postgres::connection::server_error::{
    is_connection_lost, is_worth_retrying, server_error, sqlstate_of,
};
use crate::postgres::connection::session::{Row, Session};
use crate::postgres::schema::dependencies::{self, Start};
use crate::postgres::transaction::advisory_lock::{self, CLASS};
use crate::postgres::transaction::commit::was_committed;
use crate::postgres::transaction::open::{BEGIN, lookup, reset};
use crate::service::event::EventKind;
use crate::service::failure::{Holder, ServerError};

/// Relations dropped in one transaction. Each takes several slots of the server's lock table
/// (itself, indexes, TOAST), which by default holds 64 for each connection it allows.
const PIECE: usize = 50;

/// How long letting go of a shared table may wait for its lock. Whoever reads that table
/// meanwhile waits behind it.
const BRIEF: Duration = Duration::from_millis(200);

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// What would be lost with a schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The schemas that there are: the tenant's, or what an unfinished drop left of it.
    pub homes: Vec<SchemaName>,
    /// How many tables.
    pub tables: usize,
    /// How many rows, by the server's own statistics.
    pub rows: u64,
    /// How many bytes on disk, indexes included.
    pub bytes: u64,
    /// Whether somebody's lock on a table was in the way: `bytes` is by the server's statistics
    /// then, and `referrers` may lack some.
    pub is_partial: bool,
    /// Objects outside the schema that would go with it.
    pub dependents: Vec<Dependent>,
    /// Keys of shared tables whose rows refer to the tenant's row.
    pub referrers: Vec<Referrer>,
}

impl Contents {
    /// Returns whether there is a schema at all.
    #[must_use]
    pub fn exists(&self) -> bool {
        !self.homes.is_empty()
    }

    /// Returns whether a drop has begun and was not finished.
    #[must_use]
    pub fn is_dropping(&self) -> bool {
        let mut homes = self.homes.iter();
        homes.any(|home| home.as_str().starts_with(DROPPING_PREFIX))
    }

    /// Returns why the schema may not be dropped.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Dependents`]. An extension is never taken along: it belongs to the
    /// whole database, and can be moved.
    pub fn refuse_dependents(&self, cascade_outside: bool) -> Result<(), CatalogError> {
        refuse(&self.dependents, cascade_outside)
    }
}

fn refuse(dependents: &[Dependent], cascade_outside: bool) -> Result<(), CatalogError> {
    let has_extension = dependents.iter().any(|one| one.extension.is_some());
    if dependents.is_empty() || (cascade_outside && !has_extension) {
        return Ok(());
    }
    Err(CatalogError::Dependents(dependents.to_vec()))
}

/// What is dropped besides the schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Whether the tenant's row and hosts stay.
    pub keep_record: bool,
    /// Whether what depends on the schema from outside goes too.
    pub cascade_outside: bool,
}

/// Why a schema was not dropped.
#[derive(Debug)]
pub enum DropError {
    /// The catalog or the server refused.
    Catalog(CatalogError),
    /// Another run kept the schema's lock for longer than `lock_wait`.
    Locked {
        /// Who, where the server told.
        holder: Option<Holder>,
        /// How long was waited.
        waited: Duration,
    },
    /// Sessions that use its tables kept their locks through every attempt.
    InUse(ServerError),
}

impl From<CatalogError> for DropError {
    fn from(error: CatalogError) -> Self {
        Self::Catalog(error)
    }
}

/// A row without which nothing is done: it is asked for under the lock, because a name may
/// be somebody else's by then.
#[derive(Clone)]
pub(crate) struct Owner {
    /// Brings the row, and keeps it.
    pub(crate) query: String,
    /// Who it is, in words.
    pub(crate) name: String,
}

/// One transaction under a schema's lock.
pub(crate) struct Piece {
    pub(crate) owner: Option<Owner>,
    /// What it drops, in words.
    pub(crate) what: String,
    /// Whose lock is taken, by the name it has before.
    pub(crate) schema: SchemaName,
    /// Tables that are locked first, so that nobody outside can begin to depend on them.
    pub(crate) tables: Tables,
    pub(crate) statements: String,
    /// How long each statement waits for a lock, where that is less than usual.
    pub(crate) brief: bool,
}

/// Which tables a piece drops.
pub(crate) enum Tables {
    None,
    /// None, and there must be no schema either.
    NoSchema,
    /// These, by their oids.
    These(Vec<String>),
    /// All that are in the schema.
    All,
}

/// Whether a tenant has its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is there.
    Whole,
    /// A drop has begun and was not finished.
    Dropping,
    /// There is none.
    Missing,
}

impl PostgresCatalog {
    /// Returns whether a tenant has its schema. Waits for no lock, whoever works in there.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub async fn presence(&self, tenant: &Tenant) -> Result<Presence, CatalogError> {
        let sql = format!(
            "SELECT starts_with(nspname, '{DROPPING_PREFIX}') FROM pg_namespace WHERE nspname IN ({}, {}) ORDER BY 1 DESC LIMIT 1",
            escape_literal(SchemaName::dropping(tenant.id).as_str()),
            escape_literal(tenant.schema.as_str()),
        );
        let rows = self.session().await?.read(&sql).await;
        let rows = rows.map_err(|error| catalog_error(&error))?;
        Ok(match rows.first().and_then(|row| row.optional(0)) {
            None => Presence::Missing,
            Some("t") => Presence::Dropping,
            Some(_) => Presence::Whole,
        })
    }

    /// Returns what a tenant's schema holds, and who outside depends on it. Changes nothing.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub async fn contents(&self, tenant: &Tenant) -> Result<Contents, CatalogError> {
        let names = [SchemaName::dropping(tenant.id), tenant.schema.clone()];
        let session = self.session().await?;
        let mut contents = contents_of(&session, &names).await?;
        match referencing_rows::find(&session, self.tables(), tenant, Reach::Shared, BRIEF).await {
            Ok(shared) => contents.referrers = shared.found,
            Err(error) if is_worth_retrying(&error) => contents.is_partial = true,
            Err(error) => return Err(catalog_error(&error)),
        }
        Ok(contents)
    }

    /// Refuses where the tenant's row cannot be deleted, or other tenants' rows would go with it.
    /// Of other rows those count that `matters` says.
    pub(crate) async fn refuse_referrers(
        &self,
        tenant: &Tenant,
        reach: Reach,
        matters: impl Fn(&Referrer) -> bool,
        options: &EngineOptions,
    ) -> Result<(), DropError> {
        let mut attempt = 0;
        let referrers = loop {
            let session = self.session().await?;
            let found = referencing_rows::find(
                &session,
                self.tables(),
                tenant,
                reach,
                options.lock_timeout,
            );
            match found.await {
                Ok(referrers) => break referrers,
                // A table that another drop took meanwhile is as good as a lock.
                Err(error) if is_worth_retrying(&error) || is_gone(&error) => {
                    attempt += 1;
                    if attempt > options.lock_retries {
                        return Err(DropError::InUse(server_error(&error)));
                    }
                    self.retrying(&error, attempt, options);
                }
                Err(error) => return Err(catalog_error(&error).into()),
            }
            tokio::time::sleep(PAUSE).await;
        };
        let named: Vec<String> = referrers
            .found
            .iter()
            .filter(|one| one.is_tenants || matters(one))
            .map(|one| format!("{} (key {})", one.table, one.key))
            .collect();
        if !named.is_empty() {
            return Err(CatalogError::ReferencedBy(named).into());
        }
        let room = self.room_for_locks().await?;
        if referrers.locks > room {
            return Err(CatalogError::TooManyLocks {
                needed: referrers.locks,
                available: room,
            }
            .into());
        }
        Ok(())
    }

    /// Returns how many locks the server has room for (manual section 20.12).
    async fn room_for_locks(&self) -> Result<u64, CatalogError> {
        let sql = "SELECT current_setting('max_locks_per_transaction')::int8 * \
                   (current_setting('max_connections')::int8 + current_setting('max_prepared_transactions')::int8)";
        let rows = self.session().await?.read(sql).await;
        let rows = rows.map_err(|error| catalog_error(&error))?;
        let room = rows.first().and_then(|row| row.optional(0)?.parse().ok());
        Ok(room.unwrap_or(u64::MAX))
    }

    /// Drops the schema and, unless it is to be kept, the tenant's row, which goes last: a
    /// run that was killed in the middle is finished by running it again.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Dependents`] when something outside would go too, [`CatalogError::ReferencedBy`] when
    /// rows elsewhere keep the tenant's row or another tenant's would go with it; [`DropError::Locked`]
    /// when a migration holds the schema for longer than `lock_wait`.
    pub async fn drop(
        &self,
        tenant: &Tenant,
        removal: Removal,
        options: &EngineOptions,
    ) -> Result<(), DropError> {
        let half_gone = SchemaName::dropping(tenant.id);
        let names = [half_gone.clone(), tenant.schema.clone()];
        let contents = contents_of(&self.session().await?, &names).await?;
        contents.refuse_dependents(removal.cascade_outside)?;
        let mut last = String::new();
        if !removal.keep_record {
            self.refuse_referrers(tenant, Reach::Elsewhere, |one| one.keeps, options)
                .await?;
            let delete = self.tables().delete(tenant.id);
            let _ = write!(last, "; {}{delete}", lookup(options));
        }
        let owner = self.owner(tenant);
        for (position, home) in contents.homes.iter().enumerate() {
            let is_last = position + 1 == contents.homes.len();
            let mark = (*home != half_gone).then(|| Mark {
                name: half_gone.clone(),
                statement: String::new(),
                owner: owner.clone(),
            });
            let last = if is_last { &*last } else { "" };
            self.drop_schema(home, mark, removal.cascade_outside, last, options)
                .await?;
        }
        if !contents.exists() {
            // Its schema may have another name by now, or be in the trash.
            let piece = Piece {
                owner: Some(owner),
                what: "the tenant's row".to_owned(),
                schema: tenant.schema.clone(),
                tables: Tables::NoSchema,
                statements: last,
                brief: false,
            };
            self.piece(&piece, removal.cascade_outside, options).await?;
        }
        // Nothing believes these rows any more, and without our tables there are none.
        if let Ok(session) = self.session().await {
            let forget = format!("{UNCONFIRMED}; {}", run_log::forget(&tenant.schema));
            let _ = session.rows(&forget).await;
        }
        Ok(())
    }

    /// The row that makes a schema this tenant's.
    pub(crate) fn owner(&self, tenant: &Tenant) -> Owner {
        Owner {
            query: format!(
                "SELECT FROM {} WHERE {} = '{}' AND {} = {} FOR UPDATE",
                self.tables().tenants,
                self.tables().id,
                tenant.id,
                self.tables().schema,
                escape_literal(tenant.schema.as_str())
            ),
            name: tenant.slug.to_string(),
        }
    }

    /// Drops one schema, in one transaction where that is enough. With the first of several
    /// the mark is made that tells everybody; with the last one runs `last`.
    pub(crate) async fn drop_schema(
        &self,
        schema: &SchemaName,
        mark: Option<Mark>,
        cascade_outside: bool,
        last: &str,
        options: &EngineOptions,
    ) -> Result<(), DropError> {
        let session = self.session().await?;
        let name = mark.as_ref().map_or(schema, |mark| &mark.name);
        let mut pieces = pieces(&session, schema, name)
            .await
            .map_err(|error| catalog_error(&error))?;
        drop(session);
        let mut renamed = schema;
        let mut owner = mark.as_ref().map(|mark| mark.owner.clone());
        if let (Some(first), Some(mark)) = (pieces.first_mut(), &mark) {
            first.owner = owner.take();
            first.schema = schema.clone();
            let rename = if mark.name == *schema {
                String::new()
            } else {
                format!(
                    "ALTER SCHEMA {} RENAME TO {}; ",
                    schema.quoted(),
                    mark.name.quoted()
                )
            };
            first.statements = format!("{}{rename}{}", mark.statement, first.statements);
            renamed = &mark.name;
        }
        pieces.push(Piece {
            owner,
            what: "the schema".to_owned(),
            schema: renamed.clone(),
            tables: Tables::All,
            statements: format!("DROP SCHEMA IF EXISTS {} CASCADE{last}", renamed.quoted()),
            brief: false,
        });
        for (place, piece) in pieces.iter().enumerate() {
            self.progress().send(EventKind::Step {
                step: piece.what.clone(),
                number: place + 1,
                of: pieces.len(),
                rows: 0,
                bytes: 0,
            });
            self.piece(piece, cascade_outside, options).await?;
        }
        Ok(())
    }

    /// One short transaction under the schema's lock, run again where a lock was in the way.
    pub(crate) async fn piece(
        &self,
        piece: &Piece,
        cascade_outside: bool,
        options: &EngineOptions,
    ) -> Result<(), DropError> {
        let begun = Instant::now();
        let patience = (options.lock_timeout + PAUSE) * (options.lock_retries + 1);
        let budget = piece.brief.then_some((begun, patience));
        let mut attempt = 0;
        let mut told: Option<Instant> = None;
        let mut wait = Duration::ZERO;
        loop {
            let session = self.database().session(wait).await;
            let session = session.map_err(database_error)?;
            wait = RECONNECT_TIMEOUT;
            let done = transact(&session, piece, options).await;
            match done {
                Ok(Done::NotOwned(name)) => return Err(CatalogError::NotFound(name).into()),
                Ok(Done::Appeared) => {
                    return Err(CatalogError::SchemaAppeared(piece.schema.clone()).into());
                }
                Ok(Done::Busy(oid)) => {
                    let waited = begun.elapsed();
                    let gives_up = waited >= options.lock_wait;
                    if gives_up || told.is_none_or(|told| told.elapsed() >= REPORT_INTERVAL) {
                        let holder = advisory_lock::holder(&session, oid).await.ok().flatten();
                        if gives_up {
                            return Err(DropError::Locked { holder, waited });
                        }
                        told = Some(Instant::now());
                        self.progress()
                            .send(EventKind::WaitingForLock { holder, waited });
                    }
                }
                Ok(Done::Prepared(dependents)) => {
                    if let Err(error) = refuse(&dependents, cascade_outside) {
                        session.discard();
                        return Err(error.into());
                    }
                    match self.finish(&session, piece).await {
                        Ok(()) => return Ok(()),
                        Err(Unfinished { in_doubt, error }) => {
                            session.discard();
                            if let Some(transaction) = in_doubt
                                && was_committed(
                                    self.database(),
                                    &transaction,
                                    server_error(&error),
                                )
                                .await
                                .map_err(database_error)?
                            {
                                return Ok(());
                            }
                            attempt += 1;
                            again(&error, attempt, piece, options, budget)?;
                            self.tell_again(&error, attempt, piece, begun, &mut told, options);
                        }
                    }
                }
                Err(error) => {
                    session.discard();
                    attempt += 1;
                    again(&error, attempt, piece, options, budget)?;
                    self.tell_again(&error, attempt, piece, begun, &mut told, options);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Tells that a piece is tried again. A brief one tries so often that each time is not worth a word.
    fn tell_again(
        &self,
        error: &Error,
        attempt: u32,
        piece: &Piece,
        begun: Instant,
        told: &mut Option<Instant>,
        options: &EngineOptions,
    ) {
        if !piece.brief {
            self.retrying(error, attempt, options);
        } else if told.is_none_or(|told| told.elapsed() >= REPORT_INTERVAL) {
            *told = Some(Instant::now());
            self.progress().send(EventKind::WaitingForLock {
                holder: None,
                waited: begun.elapsed(),
            });
        }
    }

    fn retrying(&self, error: &Error, attempt: u32, options: &EngineOptions) {
        self.progress().send(EventKind::Retrying {
            attempt,
            limit: options.lock_retries + 1,
            error: server_error(error),
            blockers: Vec::new(),
            pause: PAUSE,
        });
    }

    async fn finish(&self, session: &Session, piece: &Piece) -> Result<(), Unfinished> {
        let sql = format!(
            "{}; SELECT pg_current_xact_id(), pg_backend_pid()",
            piece.statements
        );
        let rows = session.rows(&sql).await.map_err(|error| Unfinished {
            in_doubt: None,
            error,
        })?;
        let cell = |column| {
            rows.last()
                .and_then(|row| row.optional(column))
                .unwrap_or_default()
        };
        let (transaction, pid) = (cell(0), cell(1).parse().unwrap_or_default());
        match self.committing(pid, session.rows("COMMIT")).await {
            Ok(_) => Ok(()),
            Err(error) => Err(Unfinished {
                in_doubt: is_connection_lost(&error).then(|| transaction.to_owned()),
                error,
            }),
        }
    }
}

/// How a schema shows that it is half gone.
pub(crate) struct Mark {
    /// The name it gets, or keeps.
    pub(crate) name: SchemaName,
    /// What is done besides, with a semicolon behind it.
    pub(crate) statement: String,
    /// Whose schema it is to be.
    pub(crate) owner: Owner,
}

/// Returns nothing where the piece is worth another attempt.
fn again(
    error: &Error,
    attempt: u32,
    piece: &Piece,
    options: &EngineOptions,
    budget: Option<(Instant, Duration)>,
) -> Result<(), DropError> {
    if is_connection_lost(error) && attempt <= options.lock_retries.max(1) {
        return Ok(());
    }
    if !is_worth_retrying(error) {
        let said = server_error(error);
        return Err(match said.sqlstate.as_deref() {
            // Another session was faster.
            Some(sqlstate::INVALID_SCHEMA_NAME) => {
                CatalogError::SchemaMissing(piece.schema.clone())
            }
            // Rows that came after it was looked for them.
            Some(sqlstate::FOREIGN_KEY_VIOLATION) => {
                CatalogError::ReferencedBy(vec![referring(error)])
            }
            Some(sqlstate::OUT_OF_MEMORY) => CatalogError::LockTableFull(said.to_string()),
            _ => database_error(said),
        }
        .into());
    }
    let is_over = match budget {
        _ if options.lock_timeout.is_zero() => false,
        Some((begun, patience)) => begun.elapsed() > patience,
        None => attempt > options.lock_retries,
    };
    if is_over {
        return Err(DropError::InUse(server_error(error)));
    }
    Ok(())
}

/// Returns whether what was asked about is not there.
fn is_gone(error: &Error) -> bool {
    sqlstate_of(error).is_some_and(sqlstate::is_missing_table)
}

/// Returns the table and the key that keep a row.
fn referring(error: &Error) -> String {
    let db = error.as_db_error();
    let part = |part: Option<&str>| part.unwrap_or("?").to_owned();
    format!(
        "{}.{} (key {})",
        part(db.and_then(|db| db.schema())),
        part(db.and_then(|db| db.table())),
        part(db.and_then(|db| db.constraint()))
    )
}

enum Done {
    /// The lock is taken by another session; holds the schema's oid.
    Busy(u32),
    /// The transaction is open, and this is what depends on what it is going to drop.
    Prepared(Vec<Dependent>),
    /// The row of this owner is gone, and nothing was done.
    NotOwned(String),
    /// There is a schema where there was none, and nothing was done.
    Appeared,
}

/// Opens a transaction under the lock of a schema, if there is one. Returns the schema's oid
/// where another session has the lock, and the transaction is not open then.
pub(crate) async fn under_lock(
    session: &Session,
    schema: &SchemaName,
    options: &EngineOptions,
) -> Result<Option<u32>, Error> {
    match begin(session, schema, options, options.lock_timeout).await? {
        Begun::Busy(oid) => Ok(Some(oid)),
        Begun::Open(_) => Ok(None),
    }
}

enum Begun {
    /// The lock is taken by another session; holds the schema's oid.
    Busy(u32),
    /// The transaction is open; holds the schema's oid, if there is a schema.
    Open(Option<u32>),
}

async fn begin(
    session: &Session,
    schema: &SchemaName,
    options: &EngineOptions,
    lock_timeout: Duration,
) -> Result<Begun, Error> {
    session.rows("DISCARD ALL").await?;
    let begin = format!(
        // A killed client's backend ends within this time and frees its locks.
        "{BEGIN}{}SELECT set_config('client_connection_check_interval', '2s', true) WHERE {} >= 140000; SET LOCAL search_path TO pg_catalog; SET LOCAL lock_timeout TO {}; SET LOCAL statement_timeout TO 0; \
         SET LOCAL standard_conforming_strings TO on; SET LOCAL client_min_messages TO warning; \
         SELECT oid, pg_try_advisory_xact_lock({CLASS}, oid::int4) FROM pg_namespace WHERE nspname = {}",
        reset(options.route),
        options.server_version,
        lock_timeout.as_millis(),
        escape_literal(schema.as_str())
    );
    let rows = session.rows(&begin).await?;
    let Some(row) = rows.iter().find(|row| row.len() == 2) else {
        return Ok(Begun::Open(None));
    };
    let oid = row.optional(0).and_then(|oid| oid.parse().ok());
    if row.is_true(1) {
        return Ok(Begun::Open(oid));
    }
    session.rows("ROLLBACK").await?;
    Ok(Begun::Busy(oid.unwrap_or_default()))
}

/// Opens the transaction, and looks at what must be looked at before it ends.
async fn transact(
    session: &Session,
    piece: &Piece,
    options: &EngineOptions,
) -> Result<Done, Error> {
    let lock_timeout = match options.lock_timeout {
        usual if piece.brief && (usual.is_zero() || usual > BRIEF) => BRIEF,
        usual => usual,
    };
    let oid = match begin(session, &piece.schema, options, lock_timeout).await? {
        Begun::Busy(oid) => return Ok(Done::Busy(oid)),
        Begun::Open(oid) => oid,
    };
    if let Some(owner) = &piece.owner
        && session.rows(&owner.query).await?.is_empty()
    {
        session.rows("ROLLBACK").await?;
        return Ok(Done::NotOwned(owner.name.clone()));
    }
    let Some(oid) = oid else {
        return Ok(Done::Prepared(Vec::new()));
    };
    let which = match &piece.tables {
        Tables::NoSchema => {
            session.rows("ROLLBACK").await?;
            return Ok(Done::Appeared);
        }
        Tables::None => return Ok(Done::Prepared(Vec::new())),
        Tables::These(oids) => format!("c.oid IN ({})", oids.join(", ")),
        Tables::All => format!("c.relnamespace = {oid}"),
    };
    let lock = format!(
        "DO $lock$ DECLARE t text; BEGIN FOR t IN SELECT c.oid::regclass FROM pg_class c WHERE {which} AND c.relkind IN ('r', 'p') \
         LOOP EXECUTE 'LOCK TABLE ' || t || ' IN ACCESS EXCLUSIVE MODE'; END LOOP; END $lock$"
    );
    session.rows(&lock).await?;
    let start = match &piece.tables {
        Tables::These(oids) => Start::Relations(oids),
        _ => Start::Schemas,
    };
    let dependents = session
        .rows(&dependencies::select(&[oid.to_string()], &start))
        .await?;
    Ok(Done::Prepared(dependencies::read(&dependents)))
}

/// Why a transaction did not end.
struct Unfinished {
    /// Which transaction it is, where COMMIT was sent and nobody answered.
    in_doubt: Option<String>,
    error: Error,
}

/// Returns what schemas of these names hold, as far as they exist. Waits for nobody's lock for long.
pub(crate) async fn contents_of(
    session: &Session,
    names: &[SchemaName],
) -> Result<Contents, CatalogError> {
    let read = |error: Error| catalog_error(&error);
    let literals: Vec<String> = names
        .iter()
        .map(|name| escape_literal(name.as_str()))
        .collect();
    let select = |size: &str| {
        format!(
            "SET LOCAL lock_timeout TO {}; SELECT n.nspname, n.oid, (SELECT count(*) FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p')), \
         (SELECT coalesce(sum(s.n_live_tup), 0) FROM pg_stat_all_tables s WHERE s.schemaname = n.nspname), \
         (SELECT coalesce(sum({size}), 0) FROM pg_class c WHERE c.relnamespace = n.oid) \
         FROM pg_namespace n WHERE n.nspname IN ({})",
            BRIEF.as_millis(),
            literals.join(", ")
        )
    };
    // The exact size takes a lock of each table.
    let exact = "CASE WHEN c.relkind IN ('r', 'm', 'S') THEN pg_total_relation_size(c.oid) END";
    let noted = "(c.relpages::int8 + coalesce((SELECT t.relpages FROM pg_class t WHERE t.oid = c.reltoastrelid), 0)) * current_setting('block_size')::int8";
    let mut contents = Contents::default();
    let rows = match session.read(&select(exact)).await {
        Ok(rows) => rows,
        Err(error) if is_worth_retrying(&error) => {
            contents.is_partial = true;
            session.read(&select(noted)).await.map_err(read)?
        }
        Err(error) => return Err(read(error)),
    };
    let mut oids = Vec::new();
    for name in names {
        let Some(row) = rows
            .iter()
            .find(|row| row.optional(0) == Some(name.as_str()))
        else {
            continue;
        };
        contents.homes.push(name.clone());
        oids.push(row.text(1).map_err(read)?.to_owned());
        contents.tables += row.parse::<usize>(2).map_err(read)?;
        contents.rows += row.parse::<u64>(3).map_err(read)?;
        contents.bytes += row.parse::<u64>(4).map_err(read)?;
    }
    if !oids.is_empty() {
        let rows = session
            .read(&dependencies::select(&oids, &Start::Schemas))
            .await
            .map_err(read)?;
        contents.dependents = dependencies::read(&rows);
    }
    Ok(contents)
}

/// What goes before the schema itself: keys to tables elsewhere, one by one, because
/// dropping one locks the other table against everybody; then relations, some at a time.
/// `name` is what the schema is called by then.
async fn pieces(
    session: &Session,
    schema: &SchemaName,
    name: &SchemaName,
) -> Result<Vec<Piece>, Error> {
    let (literal, name_literal) = (
        escape_literal(schema.as_str()),
        escape_literal(name.as_str()),
    );
    let keys = format!(
        "SELECT format('ALTER TABLE %I.%I DROP CONSTRAINT IF EXISTS %I', {name_literal}, c.relname, k.conname), \
         format('key %s of table %s', k.conname, c.relname) \
         FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_class f ON f.oid = k.confrelid \
         WHERE k.contype = 'f' AND n.nspname = {literal} AND f.relnamespace <> n.oid AND k.conparentid = 0 ORDER BY k.oid"
    );
    // Views first: a table that still has one takes it along.
    let relations = format!(
        "SELECT c.oid, CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, \
         format('%I.%I', {name_literal}, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = {literal} AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 2 DESC, c.relispartition DESC, c.oid DESC"
    );
    let plain = |what, tables, statements, brief| Piece {
        owner: None,
        what,
        schema: name.clone(),
        tables,
        statements,
        brief,
    };
    let cell = |row: &Row, column| row.optional(column).unwrap_or_default().to_owned();
    let keys = session.read(&keys).await?;
    let mut pieces: Vec<Piece> = keys
        .iter()
        .map(|key| plain(cell(key, 1), Tables::None, cell(key, 0), true))
        .collect();
    let rows = session.read(&relations).await?;
    if rows.len() > PIECE {
        for (place, chunk) in rows.chunks(PIECE).enumerate() {
            let first = place * PIECE + 1;
            let last = first + chunk.len() - 1;
            let what = format!("tables and views {first} to {last} of {}", rows.len());
            let drops: Vec<String> = chunk
                .iter()
                .map(|row| format!("DROP {} IF EXISTS {} CASCADE", cell(row, 1), cell(row, 2)))
                .collect();
            let oids = chunk.iter().map(|row| cell(row, 0)).collect();
            pieces.push(plain(what, Tables::These(oids), drops.join("; "), false));
        }
    }
    Ok(pieces)
}
