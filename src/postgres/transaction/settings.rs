//! The statements that open a transaction and set what a script depends on.

use std::fmt::Write as _;

use crate::domain::schema_name::SchemaName;
use crate::domain::script::Scope;
use crate::domain::target::Target;
use crate::migrations::Timeout;
use crate::postgres::connection::database::Route;
use crate::postgres::connection::options::EngineOptions;
use crate::postgres::connection::session::Session;

/// Opens a transaction, whatever the role's defaults are.
pub(crate) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; ";

/// Does what `DISCARD ALL` does, as far as a transaction may: behind a pooler, [`discard`] may have run
/// in another session. A temporary table of another client would hide the tenant's table of the
/// same name, and dropping it here would look like an escape to the guard, so it raises an error for
/// which the transaction is retried.
pub(crate) const RESET: &str = "RESET SESSION AUTHORIZATION; RESET ALL; \
     DO $$ BEGIN IF EXISTS (SELECT FROM pg_catalog.pg_depend \
     WHERE refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND refobjid = pg_catalog.pg_my_temp_schema()) \
     THEN RAISE EXCEPTION USING ERRCODE = '40001', MESSAGE = 'the pooler shares a session that has temporary tables of another client'; \
     END IF; END $$; ";

/// `DISCARD ALL`, which cannot run in a transaction, without `DEALLOCATE ALL`: the driver keeps prepared
/// statements of its own, with which it reads the types of each tenant. Not for sessions of a pooler,
/// whose channels and advisory locks may be another client's.
pub(crate) const CLEAN: &str = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; \
     SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES; ";

/// The part of [`CLEAN`] that cannot affect other clients of a pooler: in the transaction that left the
/// state, before its COMMIT. Prepared statements are those since the transaction began.
pub(crate) const CLEAN_POOLED: &str = "CLOSE ALL; RESET SESSION AUTHORIZATION; RESET ALL; DISCARD TEMP; DISCARD SEQUENCES; \
     DO $$ DECLARE own text; BEGIN FOR own IN SELECT name FROM pg_catalog.pg_prepared_statements \
     WHERE from_sql AND prepare_time OPERATOR(pg_catalog.>=) pg_catalog.now() \
     LOOP EXECUTE pg_catalog.format('DEALLOCATE %I', own); END LOOP; END $$; ";

/// Keeps COMMIT from waiting for a synchronous standby, in transactions that change only the tables of
/// pricesync: their content can be restored, and a missing standby is reported before it is waited for.
pub(crate) const ASYNC_COMMIT: &str = "SET LOCAL synchronous_commit TO local";

/// How long a setting lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SettingScope {
    /// Until the transaction ends, so that a pooler cannot hand it to another client.
    Transaction,
    /// Until the session ends; the session must be closed afterwards.
    Session,
}

impl SettingScope {
    const fn set(self) -> &'static str {
        match self {
            Self::Transaction => "SET LOCAL",
            Self::Session => "SET",
        }
    }
}

/// Returns the statements that set everything a script depends on, whatever the defaults of role and
/// database are.
pub(crate) fn settings(options: &EngineOptions, target: &Target, scope: SettingScope) -> String {
    schema_settings(options, target, scope) + &session_settings(options, scope)
}

/// Returns the settings that depend on the schema.
pub(crate) fn schema_settings(
    options: &EngineOptions,
    target: &Target,
    scope: SettingScope,
) -> String {
    let set = scope.set();
    let mut sql = format!("{set} search_path TO {}", target.schema.quoted());
    if target.scope == Scope::Tenant {
        for schema in &options.search_path {
            let _ = write!(sql, ", {}", schema.quoted());
        }
    }
    sql.push_str("; ");
    if target.schema == SchemaName::bookkeeping() {
        let _ = write!(sql, "{set} synchronous_commit TO local; ");
    }
    sql
}

/// How long a transaction may be idle, in case our process hangs.
const IDLE_TIMEOUT: &str = "5min";

/// Returns the value of a timeout in a run, zero for no limit; `None` where it is the server's default.
pub(crate) fn own_timeout(options: &EngineOptions, timeout: Timeout) -> Option<String> {
    match timeout {
        Timeout::Lock => Some(options.lock_timeout.as_millis().to_string()),
        Timeout::Statement => Some(options.statement_timeout.as_millis().to_string()),
        Timeout::IdleInTransaction => Some(IDLE_TIMEOUT.to_owned()),
        Timeout::Transaction => None,
    }
}

/// Returns the settings that are the same for every schema.
fn session_settings(options: &EngineOptions, scope: SettingScope) -> String {
    let set = scope.set();
    let mut sql = format!(
        "{set} lock_timeout TO {}; {set} statement_timeout TO {}; \
         {set} idle_in_transaction_session_timeout TO '{IDLE_TIMEOUT}'; {set} standard_conforming_strings TO on; \
         {set} client_min_messages TO notice; \
         SELECT set_config('synchronous_commit', 'on', {}) WHERE current_setting('synchronous_commit') = 'off'; ",
        options.lock_timeout.as_millis(),
        options.statement_timeout.as_millis(),
        scope == SettingScope::Transaction
    );
    if options.server_version >= 140_000 {
        // The backend of a killed client ends within this time and releases its locks.
        let _ = write!(sql, "{set} client_connection_check_interval TO '2s'; ");
    }
    sql
}

/// Returns the statement that cleans a session before its transaction. Behind a pooler it may run in
/// another session, and prepared statements, channels and locks there may be another client's.
pub(crate) fn discard(route: Route) -> &'static str {
    match route {
        Route::Direct => "DISCARD ALL",
        Route::Pooled => "DISCARD TEMP",
    }
}

/// Returns [`RESET`] where a pooler may have given the session to another client before.
pub(crate) fn reset(route: Route) -> &'static str {
    match route {
        Route::Pooled => RESET,
        Route::Direct => "",
    }
}

/// Returns the statement that sets `search_path` before the catalog's rows are changed: triggers of the
/// application find what they find in the application. It lasts until COMMIT, which runs deferred
/// triggers.
pub(crate) fn catalog_search_path(options: &EngineOptions) -> String {
    if options.search_path.is_empty() {
        return "SET LOCAL search_path TO pg_catalog; ".to_owned();
    }
    let quoted = |schema: &SchemaName| schema.quoted().to_string();
    let path: Vec<String> = options.search_path.iter().map(quoted).collect();
    format!("SET LOCAL search_path TO {}; ", path.join(", "))
}

/// Returns the statements that open a transaction with the settings for this target.
pub(crate) fn begin(options: &EngineOptions, target: &Target) -> String {
    format!(
        "{BEGIN}{}{}",
        reset(options.route),
        settings(options, target, SettingScope::Transaction)
    )
}

/// Returns the messages that prepare a session for its first transaction: none for a session from the
/// cache. Without a pooler they include the settings that hold for every schema.
pub(crate) fn session_setup(session: &Session, options: &EngineOptions) -> Vec<String> {
    let mut messages = Vec::new();
    if !session.was_kept() {
        messages.push(discard(options.route).to_owned());
        if options.route == Route::Direct {
            messages.push(session_settings(options, SettingScope::Session));
        }
    }
    messages
}
