//! The exit codes, and the failure of a command with its hints.

use std::fmt;

use crate::archive::ArchiveError;
use crate::domain::catalog::{CatalogError, Taken};
use crate::domain::hint::Hint;
use crate::domain::sqlstate;
use crate::migrations::{LoadError, LoadErrors};
use crate::postgres::backup::BackupError;
use crate::postgres::connection::database::ConnectError;
use crate::postgres::tenants::change::ChangeError;
use crate::postgres::tenants::where_clause::WhereError;
use crate::service::event::{Interrupt, NotStarted, Outcome};
use crate::service::failure::MigrateError;
use crate::service::rollout::RolloutError;
use crate::service::selection::SelectionError;
use crate::service::summary::Summary;
use crate::settings::SettingsError;
use crate::ui::{Excerpt, Explanation, count};

/// The exit codes of `pricesync help exit-codes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    /// A bug, or an error of the environment.
    Unexpected = 1,
    /// Wrong usage, configuration or migration files.
    Usage = 2,
    /// `--check`: migrations are pending.
    Pending = 3,
    /// No such tenant, schema, host or backup.
    NotFound = 4,
    /// The server could not be reached or refused the login.
    Unreachable = 5,
    /// Another run holds the lock.
    Locked = 6,
    /// Needs confirmation, or would damage something else.
    Refused = 7,
    /// At least one schema failed.
    SchemasFailed = 10,
    /// History, ledger, files or structure disagree.
    Drift = 11,
    /// Interrupted.
    Interrupted = 130,
}

impl Exit {
    /// Every code with its meaning, in the order of the codes.
    pub const TABLE: [(Self, &'static str); 11] = [
        (Self::Done, "done, or nothing to do (an empty fleet included)"),
        (Self::Unexpected, "unexpected error: a bug, or the environment broke in the middle"),
        (Self::Usage, "usage, configuration or migration files are wrong; nothing was changed"),
        (Self::Pending, "--check: migrations are pending"),
        (Self::NotFound, "no such tenant, schema, host or backup"),
        (Self::Unreachable, "the server could not be reached or refused the login"),
        (Self::Locked, "timed out waiting for a lock; --check, status: the history is locked"),
        (Self::Refused, "refused: not confirmed, taken, not permitted, or needed by other objects"),
        (
            Self::SchemasFailed,
            "the run finished, but at least one schema failed (the others are done)",
        ),
        (Self::Drift, "drift: history, ledger, files or structure disagree"),
        (Self::Interrupted, "interrupted; finished schemas stay migrated, the rest is untouched"),
    ];

    /// Returns the exit code of a run.
    ///
    /// [`Self::Locked`] and [`Self::Drift`] require that nothing was migrated and that every failure
    /// is of that kind.
    pub fn of(summary: &Summary) -> Self {
        if summary.interrupted > Interrupt::None {
            return Self::Interrupted;
        }
        let counts = summary.counts();
        if counts.failed == 0 && counts.not_started == 0 {
            return Self::Done;
        }
        let not_started_after_failure = |outcome: &Outcome| {
            matches!(
                outcome,
                Outcome::NotStarted { why } if *why != NotStarted::Interrupted
            )
        };
        let all = |is: fn(&MigrateError) -> bool| {
            summary.refused.is_empty()
                && summary.outcomes.iter().all(|item| match &item.outcome {
                    Outcome::UpToDate => true,
                    Outcome::Failed { error, applied } => applied.is_empty() && is(error),
                    other => not_started_after_failure(other),
                })
        };
        if all(|error| matches!(error, MigrateError::Locked { .. })) {
            Self::Locked
        } else if all(|error| {
            matches!(error, MigrateError::Drift { .. } | MigrateError::DamagedHistory { .. })
        }) {
            Self::Drift
        } else {
            Self::SchemasFailed
        }
    }
}

/// The failure of a command.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What failed, and its causes.
    pub cause: anyhow::Error,
    /// What to do next.
    pub hints: Vec<Hint>,
}

impl Failure {
    /// Returns a failure without a hint.
    pub fn new(exit: Exit, cause: impl Into<anyhow::Error>) -> Self {
        Self { exit, cause: cause.into(), hints: Vec::new() }
    }

    /// Returns a failure with a message.
    pub fn words(exit: Exit, words: impl fmt::Display) -> Self {
        Self::new(exit, anyhow::anyhow!("{words}"))
    }

    /// Returns a failure whose message is `context`, with the error as its cause.
    pub fn with_context(
        exit: Exit,
        error: impl std::error::Error + Send + Sync + 'static,
        context: impl fmt::Display,
    ) -> Self {
        Self::new(exit, anyhow::Error::new(error).context(context.to_string()))
    }

    /// Returns the failure of work that a signal ended.
    pub fn interrupted() -> Self {
        Self::new(Exit::Interrupted, ChangeError::Interrupted)
            .hint("run the same command again: it finishes the work, or starts it anew")
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(self, hint: impl Into<Hint>) -> Self {
        self.hints([hint.into()])
    }

    /// Adds hints.
    #[must_use]
    pub fn hints(mut self, hints: impl IntoIterator<Item = impl Into<Hint>>) -> Self {
        self.hints.extend(hints.into_iter().map(Into::into));
        self
    }

    /// Returns the failure as it is shown to the user.
    pub fn explanation(&self) -> Explanation {
        let mut chain = self.cause.chain().map(ToString::to_string);
        let (headline, caused_by) = match self.cause.downcast_ref::<LoadErrors>() {
            // Each file has its own place.
            Some(LoadErrors(errors)) if errors.len() > 1 => (
                format!("{} in the migration files", count(errors.len(), "problem")),
                errors.iter().map(ToString::to_string).collect(),
            ),
            _ => (chain.next().unwrap_or_default(), chain.collect()),
        };
        let excerpt = match self.cause.downcast_ref::<WhereError>() {
            Some(WhereError::Refused { place, .. }) => place.as_ref().map(Excerpt::new),
            _ => None,
        };
        let hints = self.hints.clone();
        Explanation { headline, excerpt, caused_by, hints, ..Explanation::default() }
    }
}

/// Returns the hint for a name that no tenant has.
fn list_tenants() -> Hint {
    Hint::command("list the tenants", "list-tenants")
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Unexpected, error)
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::new(Exit::Usage, error)
    }
}

impl From<LoadErrors> for Failure {
    fn from(errors: LoadErrors) -> Self {
        let mut hints: Vec<Hint> = Vec::new();
        for hint in errors.0.iter().filter_map(LoadError::hint) {
            if !hints.contains(&hint) {
                hints.push(hint);
            }
        }
        Self { exit: Exit::Usage, cause: errors.into(), hints }
            .hint("nothing was changed; the database was not contacted")
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::new(Exit::Unreachable, error)
    }
}

impl From<CatalogError> for Failure {
    fn from(error: CatalogError) -> Self {
        match &error {
            CatalogError::NotFound(_) => {
                Self::new(Exit::NotFound, error).hint(list_tenants())
            }
            CatalogError::AlreadyExists { what, .. } => {
                let hint = match what {
                    Taken::Slug => {
                        "choose another --slug; names that differ in case only count as the same"
                    }
                    Taken::Schema => {
                        "choose another --schema, or take over an existing one with --adopt"
                    }
                    Taken::Hostname => "choose another --domain; a host belongs to one tenant",
                };
                Self::new(Exit::Refused, error).hint(hint)
            }
            CatalogError::ColumnMissing(_) => Self::new(Exit::Usage, error)
                .hint("set the names of the columns under [catalog] in pricesync.toml, such as slug_column = \"subdomain\"; \"\" for a column that does not exist"),
            CatalogError::ColumnRequired { column, .. } => {
                let hint = format!("nothing was created; set it with --set {column}=VALUE, or give the column a default");
                Self::new(Exit::Refused, error).hint(hint)
            }
            CatalogError::RowRejected(_) => Self::new(Exit::Refused, error)
                .hint("nothing was changed; a constraint, a trigger or the type of a column rejects the row"),
            CatalogError::Ambiguous(..) => Self::new(Exit::Refused, error)
                .hint("use its schema or one of its hosts"),
            CatalogError::Dependents(objects) => {
                let extension = objects.iter().find_map(|object| object.extension.as_deref());
                let hint = match extension {
                    Some(name) => format!(
                        "an extension belongs to the whole database; move it first: ALTER EXTENSION {} SET SCHEMA public",
                        crate::domain::schema_name::QuotedIdentifier::new(name)
                    ),
                    None => "dropping the schema would drop them too; drop or move them first, or drop them too with --cascade-outside".to_owned(),
                };
                Self::new(Exit::Refused, error).hint(hint)
            }
            CatalogError::ReferencedBy(_) => Self::new(Exit::Refused, error)
                .hint("delete or move those rows first, or keep the tenant's row and drop the schema alone with --keep-record"),
            CatalogError::TooManyLocks { .. } | CatalogError::LockTableFull(_) => Self::new(Exit::Refused, error)
                .hint("raise max_locks_per_transaction on the server, restart it, and run the same command again; or keep the tenant's row and drop the schema alone with --keep-record"),
            CatalogError::NameReferenced(..) => Self::new(Exit::Refused, error)
                .hint("nothing was changed; a rename does not change these: change them first, or keep the schema's name with --keep-schema, or fix them afterwards with --leave-mentions"),
            CatalogError::SchemaAppeared(_) => Self::new(Exit::Refused, error)
                .hint("nothing was changed; the same command again shows what would be dropped"),
            CatalogError::PartlyDropped(_) => Self::new(Exit::Refused, error)
                .hint("it cannot be restored; run its drop-schema or purge again to finish it"),
            CatalogError::NoHistory(..) => Self::new(Exit::Refused, error)
                .hint(Hint::command("nothing was changed; register it as it is with --no-migrate, then record what is applied", "baseline --tenant SLUG --to VERSION")),
            // `commands/run/missing_tables.rs` says more.
            CatalogError::TablesMissing(_) | CatalogError::SchemaMissing(_) => {
                Self::new(Exit::NotFound, error)
            }
            CatalogError::PermissionDenied(_) => Self::new(Exit::Refused, error).hint(
                "requires the owner, a member of the owning role or a superuser; psql shows owners with \\dn+ (schemas) and \\d+ (tables)",
            ),
            CatalogError::Unreachable(_) => Self::new(Exit::Unreachable, error),
            CatalogError::Database(_) if error.is_contention() => Self::new(Exit::Locked, error)
                .hint("nothing was changed; another session uses it: retry when that session has finished"),
            CatalogError::Database(_) => Self::new(Exit::Unexpected, error),
        }
    }
}

impl From<SelectionError> for Failure {
    fn from(error: SelectionError) -> Self {
        match &error {
            SelectionError::Unknown(words) => {
                let near: Vec<String> = words.iter().flat_map(|(_, near)| near.clone()).collect();
                let hint = if near.is_empty() {
                    list_tenants()
                } else {
                    format!("did you mean {}?", near.join(", ")).into()
                };
                Self::new(Exit::NotFound, error).hint(hint)
            }
            SelectionError::UnknownLines(..) => Self::new(Exit::NotFound, error)
                .hint("a line holds one slug, schema or host; globs are not expanded")
                .hint(list_tenants()),
            SelectionError::NotChosen(_) => {
                Self::new(Exit::NotFound, error).hint("choose canaries among the selected tenants")
            }
            SelectionError::BadGlob(..) => Self::new(Exit::Usage, error),
        }
    }
}

impl From<RolloutError> for Failure {
    fn from(error: RolloutError) -> Self {
        match error {
            RolloutError::Catalog(error) => error.into(),
            RolloutError::Selection(error) => error.into(),
            survey @ RolloutError::Survey(_) => Self::new(Exit::Unexpected, survey),
        }
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Catalog(error) => error.into(),
            ChangeError::Migrate(_) => Self::new(Exit::Unexpected, error),
            ChangeError::Locked { .. } => Self::new(Exit::Locked, error)
                .hint("wait for that run, or raise run.lock_wait (PRICESYNC_LOCK_WAIT)"),
            ChangeError::InUse(_) => Self::new(Exit::Locked, error)
                .hint("another session uses it; retry when that session has finished"),
            ChangeError::Interrupted => Self::interrupted(),
        }
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        let exit = match error {
            BackupError::Change(error @ (ChangeError::Catalog(_) | ChangeError::Interrupted)) => {
                return error.into();
            }
            BackupError::TenantMissing => Exit::NotFound,
            BackupError::Change(ChangeError::Locked { .. }) => Exit::Locked,
            BackupError::Unsupported(_) | BackupError::NameReferenced(_) => Exit::Refused,
            BackupError::Different(_) => Exit::Drift,
            BackupError::Archive(ref archive) => match archive {
                ArchiveError::Io(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    Exit::NotFound
                }
                ArchiveError::Newer(_) => Exit::Usage,
                ArchiveError::NotABackup | ArchiveError::Damaged(_) => Exit::Drift,
                ArchiveError::Io(_) => Exit::Unexpected,
            },
            BackupError::Server { ref error, .. }
                if error.has_sqlstate(sqlstate::INSUFFICIENT_PRIVILEGE) =>
            {
                Exit::Refused
            }
            BackupError::Server { .. } | BackupError::Change(_) => Exit::Unexpected,
        };
        let hint = error.hint();
        Self::new(exit, error).hints(hint)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::domain::plan::Drift;
    use crate::domain::target::Target;
    use crate::service::applied_scripts::AppliedScripts;
    use crate::service::summary::SchemaOutcome;

    fn failed(error: MigrateError) -> Outcome {
        Outcome::Failed { error: Box::new(error), applied: Vec::new() }
    }

    fn locked() -> Outcome {
        failed(MigrateError::Locked { holder: None, waited: Duration::ZERO })
    }

    fn exit(outcomes: Vec<Outcome>, interrupted: Interrupt) -> Exit {
        let item = |outcome| SchemaOutcome { target: Arc::new(Target::public()), outcome };
        Exit::of(&Summary {
            outcomes: outcomes.into_iter().map(item).collect(),
            interrupted,
            ..Summary::default()
        })
    }

    #[test]
    fn an_empty_run_is_done_and_an_interrupted_one_is_interrupted() {
        assert_eq!(exit(vec![], Interrupt::None), Exit::Done);
        assert_eq!(exit(vec![Outcome::UpToDate], Interrupt::Drain), Exit::Interrupted);
    }

    #[test]
    fn a_lock_or_a_drift_alone_has_its_own_code() {
        let drift = || {
            failed(MigrateError::Drift { drifts: vec![Drift::Vanished { script: "V1__x".into() }] })
        };
        let not_started = Outcome::NotStarted { why: NotStarted::EarlierFailure };
        assert_eq!(exit(vec![locked(), Outcome::UpToDate], Interrupt::None), Exit::Locked);
        assert_eq!(exit(vec![drift(), not_started], Interrupt::None), Exit::Drift);
        assert_eq!(exit(vec![drift(), locked()], Interrupt::None), Exit::SchemasFailed);
        let migrated =
            Outcome::Migrated { scripts: AppliedScripts::default(), took: Duration::ZERO };
        assert_eq!(exit(vec![locked(), migrated], Interrupt::None), Exit::SchemasFailed);
        assert_eq!(
            exit(vec![failed(MigrateError::SchemaMissing)], Interrupt::None),
            Exit::SchemasFailed
        );
    }

    #[test]
    fn every_code_is_in_the_table_once() {
        let mut codes: Vec<u8> = Exit::TABLE.iter().map(|(exit, _)| *exit as u8).collect();
        codes.dedup();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 130]);
    }
}
