//! `create-superuser`: adds a superuser to a tenant's table of users.

use std::io::Read as _;

use super::args::tenant::TenantArg;
use super::run::app::{Access, App};
use super::run::tenants::find_with_schema;
use super::run::{CommandRun, print_line};
use crate::domain::hint::Hint;
use crate::domain::password;
use crate::domain::sqlstate;
use crate::domain::tenant::Tenant;
use crate::error::{Exit, Failure};
use crate::postgres::connection::database::Database;
use crate::postgres::migrate::pending_hint::PendingHint;
use crate::postgres::tenants::admin::TenantAdmin;
use crate::postgres::tenants::context::TenantError;
use crate::postgres::tenants::users::{NewUser, UserError};
use crate::service::failure::ServerError;
use crate::service::selection::target;
use crate::settings::Hasher;

/// Create a superuser in a tenant's table of users
///
/// [users] in pricesync.toml names the table and its columns. The command prompts for the
/// password twice, without echo, or reads it from stdin. It stores an Argon2id hash, or
/// Django's PBKDF2 with [users] hasher = "pbkdf2_sha256".
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    tenant: TenantArg,
    /// Login name
    #[arg(long, value_name = "NAME")]
    username: String,
    /// Email address
    #[arg(long, value_name = "ADDRESS", default_value = "")]
    email: String,
    /// Read the password from the first line of stdin
    #[arg(long)]
    password_stdin: bool,
}

impl CommandRun for Args {
    async fn run(&self, app: &App) -> Result<Exit, Failure> {
        let usage = |words: &str| Failure::words(Exit::Usage, words);
        if self.username.trim().is_empty() || self.username.chars().any(char::is_control) {
            return Err(usage("the username may not be empty or contain control characters"));
        }
        let parts = self.email.split_once('@');
        let is_address = parts.is_some_and(|(name, host)| !name.is_empty() && !host.is_empty());
        if !self.email.is_empty() && (!is_address || self.email.contains(char::is_whitespace)) {
            return Err(usage("the email address must have the form name@host"));
        }
        let database = app.database(Access::Write, 2).await?;
        let tenant = find_with_schema(&self.tenant.tenant, app, &database).await?;
        let password = if self.password_stdin {
            read_password()?
        } else {
            prompt_for_password(self, &tenant, app)?
        };
        let hash = match app.settings.hasher {
            Hasher::Argon2id => password::argon2id(&password),
            Hasher::Pbkdf2Sha256 => password::django_pbkdf2(&password),
        };
        let hash = hash.ok_or_else(|| Failure::words(Exit::Unexpected, "cannot create a salt"))?;
        let user = NewUser { username: &self.username, email: &self.email, password_hash: &hash };
        let settings = &app.settings;
        let change =
            async |admin: TenantAdmin| admin.create_superuser(&tenant, &settings.users, user).await;
        let created = app.change(&database, change).await?;
        if let Err(error) = created {
            return Err(explain(error, &tenant, app, &database).await);
        }
        let line = format!(
            "✓ Superuser created: {} (tenant={}, table={}.{})",
            self.username, tenant.slug, tenant.schema, settings.users.table
        );
        print_line(&app.terminal, line)?;
        Ok(Exit::Done)
    }
}

async fn explain(error: UserError, tenant: &Tenant, app: &App, database: &Database) -> Failure {
    let said = match &error {
        UserError::Database(said) | UserError::Context(TenantError::Refused(said)) => Some(said),
        _ => None,
    };
    let is_locked = said.is_some_and(ServerError::is_contention);
    let is_forbidden = said.is_some_and(|said| said.has_sqlstate(sqlstate::INSUFFICIENT_PRIVILEGE));
    let exit = match &error {
        UserError::Interrupted => return Failure::interrupted(),
        _ if is_locked => Exit::Locked,
        _ if is_forbidden => Exit::Refused,
        UserError::Taken(_) | UserError::Refused(_) => Exit::Refused,
        UserError::NoTable(_)
        | UserError::NoColumn { .. }
        | UserError::Context(TenantError::SchemaMissing(_)) => Exit::NotFound,
        UserError::Context(TenantError::NoConnection(_)) => Exit::Unreachable,
        UserError::Database(_) | UserError::Context(_) => Exit::Unexpected,
    };
    let missing = match &error {
        UserError::NoTable(_) => Some(sqlstate::UNDEFINED_TABLE),
        UserError::NoColumn { .. } => Some(sqlstate::UNDEFINED_COLUMN),
        _ => None,
    };
    let is_taken = matches!(error, UserError::Taken(_));
    let cause = anyhow::Error::new(error);
    let mut failure = Failure::new(
        exit,
        cause.context(format!("cannot create a superuser in tenant '{}'", tenant.slug)),
    );
    if is_locked {
        return failure.hint(
            "another session locks the table: retry, or raise run.lock_timeout (PRICESYNC_LOCK_TIMEOUT)",
        );
    }
    if is_forbidden {
        return failure
            .hint("the role needs SELECT and INSERT on the table; the owner can grant them");
    }
    if is_taken {
        return failure.hint("usernames are compared without case");
    }
    if let Some(sqlstate) = missing {
        let said = ServerError { sqlstate: Some(sqlstate.to_owned()), ..ServerError::default() };
        let target = target(tenant);
        let pending = PendingHint::new(app.surveyor(database), vec![target.clone()]);
        failure.hints.extend(pending.hint(&target, &said).await);
        failure = failure.hint("[users] in pricesync.toml names the table and its columns");
    }
    failure
}

/// Reads one line, without its line end.
fn read_password() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().lock().read_to_string(&mut text).map_err(|error| {
        Failure::new(Exit::Usage, anyhow::Error::new(error).context("cannot read stdin"))
    })?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    checked(line)
}

fn prompt_for_password(args: &Args, tenant: &Tenant, app: &App) -> Result<String, Failure> {
    let question = format!("password of {} in tenant '{}': ", args.username, tenant.slug);
    let Some(password) = app.terminal.secret(&question)? else {
        return Err(Failure::words(
            Exit::Usage,
            "cannot prompt for the password: stdin is not a terminal",
        )
        .hint(Hint::command(
            "read it from a file",
            "create-superuser ... --password-stdin < FILE",
        )));
    };
    let password = checked(&password)?;
    if app.terminal.secret("repeat the password: ")?.as_deref() != Some(&password) {
        return Err(Failure::words(Exit::Usage, "the passwords do not match"));
    }
    Ok(password)
}

fn checked(password: &str) -> Result<String, Failure> {
    if password.is_empty() {
        return Err(Failure::words(Exit::Usage, "the password is empty"));
    }
    if password.contains(['\n', '\r', '\0']) {
        return Err(Failure::words(Exit::Usage, "the password contains a line break or NUL"));
    }
    Ok(password.to_owned())
}
