//! `create-superuser`: a person who may do everything in one tenant.

use std::io::{Read as _, Write as _};

use super::run::app::{Access, App};
use super::shell::entered;
use crate::domain::hint::Hint;
use crate::domain::password;
use crate::domain::sqlstate;
use crate::domain::tenant::Tenant;
use crate::error::{Exit, Failure};
use crate::postgres::connection::database::Database;
use crate::postgres::migrate::pending_hint::Behind;
use crate::postgres::tenants::context::TenantError;
use crate::postgres::tenants::users::{NewUser, UserError};
use crate::service::failure::ServerError;
use crate::service::selection::target;
use crate::settings::Hasher;
use crate::ui::clean;

/// Create a superuser in a tenant's table of users
///
/// The table and its columns are named in [users] of pricesync.toml. The password is asked for,
/// twice and unseen, or read from stdin; it is stored as an Argon2id hash, or as Django's
/// PBKDF2 where [users] says hasher = "pbkdf2_sha256".
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The tenant: slug, schema or host, exactly
    #[arg(long, short = 't', value_name = "TENANT")]
    tenant: String,
    /// What the person logs in with
    #[arg(long, value_name = "NAME")]
    username: String,
    /// The person's address
    #[arg(long, value_name = "ADDRESS", default_value = "")]
    email: String,
    /// Read the password from stdin, one line
    #[arg(long)]
    password_stdin: bool,
}

/// Runs the command.
pub(super) async fn run(args: &Args, app: &App) -> Result<Exit, Failure> {
    let usage = |words: &str| Failure::words(Exit::Usage, words);
    if args.username.trim().is_empty() || args.username.chars().any(char::is_control) {
        return Err(usage(
            "a username may not be empty and holds no control characters",
        ));
    }
    let parts = args.email.split_once('@');
    let is_address = parts.is_some_and(|(who, at)| !who.is_empty() && !at.is_empty());
    if !args.email.is_empty() && (!is_address || args.email.contains(char::is_whitespace)) {
        return Err(usage("the email address has the form name@host"));
    }
    let database = app.database(Access::Write, 2).await?;
    let tenant = entered(&args.tenant, app, &database).await?;
    let password = if args.password_stdin {
        from_stdin()?
    } else {
        asked(args, &tenant, app)?
    };
    let hash = match app.settings.hasher {
        Hasher::Argon2id => password::argon2id(&password),
        Hasher::Pbkdf2Sha256 => password::django_pbkdf2(&password),
    };
    let hash = hash.ok_or_else(|| Failure::words(Exit::Unexpected, "no salt could be made"))?;
    let user = NewUser {
        username: &args.username,
        email: &args.email,
        password_hash: &hash,
    };
    let settings = &app.settings;
    let created = database
        .create_superuser(
            &tenant,
            &app.engine_options(&database),
            &settings.users,
            user,
        )
        .await;
    if let Err(error) = created {
        return Err(explained(error, &tenant, app, &database).await);
    }
    let mut out = app.terminal.out();
    writeln!(
        out,
        "✓ Superuser created: {} (tenant={}, table={}.{})",
        clean(&args.username),
        clean(tenant.slug.as_str()),
        clean(tenant.schema.as_str()),
        clean(&settings.users.table)
    )?;
    out.flush()?;
    Ok(Exit::Done)
}

async fn explained(error: UserError, tenant: &Tenant, app: &App, database: &Database) -> Failure {
    let said = match &error {
        UserError::Database(said) | UserError::Context(TenantError::Refused(said)) => Some(said),
        _ => None,
    };
    let is_locked = said.is_some_and(ServerError::is_contention);
    let is_forbidden = said.is_some_and(|said| said.has_sqlstate(sqlstate::INSUFFICIENT_PRIVILEGE));
    let exit = match &error {
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
        cause.context(format!(
            "no superuser was created in tenant '{}'",
            tenant.slug
        )),
    );
    if is_locked {
        return failure.hint(
            "another session uses the table; try again when it is done, or wait longer: run.lock_timeout, PRICESYNC_LOCK_TIMEOUT",
        );
    }
    if is_forbidden {
        return failure
            .hint("the role needs SELECT and INSERT on the table; its owner may grant it");
    }
    if is_taken {
        return failure.hint("names that differ in case only count as the same");
    }
    if let Some(sqlstate) = missing {
        let said = ServerError {
            sqlstate: Some(sqlstate.to_owned()),
            ..ServerError::default()
        };
        let target = target(tenant);
        let behind = Behind::new(app.surveyor(database), vec![target.clone()]);
        failure.hints.extend(behind.hint(&target, &said).await);
        failure = failure.hint("[users] in pricesync.toml names the table and its columns");
    }
    failure
}

/// A pipe gives one line; its end is not part of the password.
fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .read_to_string(&mut text)
        .map_err(|error| {
            Failure::new(
                Exit::Usage,
                anyhow::Error::new(error).context("cannot read stdin"),
            )
        })?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    checked(line)
}

fn asked(args: &Args, tenant: &Tenant, app: &App) -> Result<String, Failure> {
    let question = format!(
        "password of {} in tenant '{}': ",
        args.username, tenant.slug
    );
    let Some(password) = app.terminal.secret(&question)? else {
        return Err(
            Failure::words(Exit::Usage, "there is no terminal to ask for the password").hint(
                Hint::command(
                    "read it from a file",
                    "create-superuser ... --password-stdin < FILE",
                ),
            ),
        );
    };
    let password = checked(&password)?;
    if app.terminal.secret("the same again: ")?.as_deref() != Some(&password) {
        return Err(Failure::words(
            Exit::Usage,
            "the passwords are not the same",
        ));
    }
    Ok(password)
}

fn checked(password: &str) -> Result<String, Failure> {
    if password.is_empty() {
        return Err(Failure::words(Exit::Usage, "the password is empty"));
    }
    if password.contains(['\n', '\r', '\0']) {
        return Err(Failure::words(
            Exit::Usage,
            "the password is more than one line",
        ));
    }
    Ok(password.to_owned())
}
