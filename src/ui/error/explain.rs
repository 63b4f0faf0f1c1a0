//! Explanations of every kind of failure of a schema.

use crate::domain::applied::AppliedScript;
use crate::domain::hint::Hint;
use crate::domain::schema_state::SchemaState;
use crate::domain::script::{Location, Scope, ScriptRef};
use crate::domain::sqlstate;
use crate::domain::target::Target;
use crate::service::failure::{Holder, MigrateError, ServerError};
use crate::service::summary::FailureGroup;

use super::excerpt::Excerpt;
use super::explanation::Explanation;
use super::hints::{
    drift_hints, find_definition, find_duplicates, name_with_schema, of_server, remedy,
};
use crate::ui::text::{count, fit, whole};

/// Returns the explanation of one schema's failure; `applied` is what the same run committed in the
/// schema before.
pub fn explain(error: &MigrateError, target: &Target, applied: &[AppliedScript]) -> Explanation {
    let rerun = format!("rerun with {}", Target::option(std::iter::once(target)));
    one(error, target, applied, &rerun, "--lock-wait")
}

/// Returns the explanation of a tenant that was not created.
pub fn explain_creation(error: &MigrateError, target: &Target) -> Explanation {
    let rerun = "run the same command again";
    one(error, target, &[], rerun, "PRICESYNC_LOCK_WAIT")
}

fn one(
    error: &MigrateError,
    target: &Target,
    applied: &[AppliedScript],
    rerun: &str,
    lock_wait: &'static str,
) -> Explanation {
    Subject {
        name: target.schema.to_string(),
        lookup: match target.scope {
            Scope::Shared => target.schema.to_string(),
            Scope::Tenant => format!("{}, then in [run] search_path", target.schema),
        },
        missing: match target.scope {
            Scope::Shared => format!("schema '{}' does not exist", target.schema),
            Scope::Tenant => format!("the schema of tenant '{}' does not exist", target.label),
        },
        rerun,
        lock_wait,
        applied,
        is_one: true,
    }
    .explain(error)
}

/// Returns the explanation of a failure that several schemas share.
pub fn explain_group(group: &FailureGroup<'_>) -> Explanation {
    if let [target] = group.targets.as_slice() {
        return explain(group.error, target, group.applied);
    }
    Subject {
        name: "these schemas".to_owned(),
        lookup: "the schema itself, then in [run] search_path".to_owned(),
        missing: "the schemas of these tenants do not exist".to_owned(),
        rerun: "rerun",
        lock_wait: "--lock-wait",
        applied: &[],
        is_one: false,
    }
    .explain(group.error)
}

/// How many columns of another session's statement are shown.
const QUERY: usize = 80;

/// What an explanation is about: one schema or several, in phrases.
struct Subject<'a> {
    name: String,
    /// Where unqualified names are looked up.
    lookup: String,
    /// The headline for a schema that does not exist.
    missing: String,
    /// How to try again.
    rerun: &'a str,
    /// The option or variable that sets how long to wait for the schema's lock.
    lock_wait: &'static str,
    applied: &'a [AppliedScript],
    /// Whether it is one schema, which SQL in a hint can then name.
    is_one: bool,
}

impl Subject<'_> {
    /// Returns the hints for a change outside the schema, which these entries of `allow_writes` allow.
    fn left_schema_hints(&self, allow_writes: &[String], by_event_trigger: bool) -> Vec<Hint> {
        let (rerun, what_stays) = (self.rerun, self.what_stays());
        let entries: Vec<String> =
            allow_writes.iter().map(|entry| format!("\"{entry}\"")).collect();
        let allow =
            format!("set allow_writes = [{}] under [guard] in pricesync.toml", entries.join(", "));
        let mut hints = Vec::new();
        if !by_event_trigger {
            hints.push(format!("a tenant's migration may change only its own schema, so move this statement to the shared set and {rerun}; {what_stays}").into());
        }
        if !entries.is_empty() {
            hints.push(if by_event_trigger {
                format!("the event trigger runs with every migration; to let it write there, {allow}, then {rerun}; {what_stays}").into()
            } else {
                format!("or, if tenants may write there, {allow}").into()
            });
        }
        hints
    }

    fn explain(&self, error: &MigrateError) -> Explanation {
        let rerun = self.rerun;
        match error {
            MigrateError::SchemaMissing => {
                Explanation::new(&self.missing).hint(SchemaState::missing_hint())
            }
            MigrateError::Script { script, file, place, error, blockers, attempts, rolled_back } => {
                Explanation {
                    excerpt: place.as_ref().map(Excerpt::new),
                    details: details(error, blockers, *attempts),
                    context: error.context.clone(),
                    hints: self.script_hints(script, error, blockers, *rolled_back),
                    ..Explanation::new(script_failed(script, file, place.as_ref())).cause(error)
                }
            }
            MigrateError::LeftSchema { scripts, touched, allow_writes, by_event_trigger } => {
                Explanation {
                    caused_by: touched.clone(),
                    hints: self.left_schema_hints(allow_writes, *by_event_trigger),
                    ..Explanation::new(format!("{} reached outside its schema", one_of(scripts)))
                }
            }
            MigrateError::LeftTransaction { scripts, why } => {
                Explanation::new(format!("{} changed the state of its transaction", one_of(scripts)))
                    .cause(why)
                    .hint(format!("take transaction control, SET ROLE and SET search_path out of the file; check what was committed in {} before you {rerun}", self.name))
            }
            MigrateError::Drift { drifts } => Explanation {
                caused_by: drifts.iter().map(ToString::to_string).collect(),
                hints: drift_hints(drifts),
                ..Explanation::new("files and history disagree, nothing was run")
            },
            MigrateError::DamagedHistory { why } => {
                Explanation::new("the migration history cannot be read, nothing was run")
                    .cause(why)
                    .hint(format!("repair that row of the history table (keep a copy of it), then {rerun}"))
            }
            MigrateError::HasHistory { version } => {
                let at = version.map(|version| format!(", at version {version}"));
                let at = at.unwrap_or_default();
                Explanation::new(format!("the schema has a migration history already{at}"))
                    .hint("another session created it in the meantime; nothing was changed")
            }
            MigrateError::SchemaIncomplete { missing } => Explanation {
                caused_by: missing.iter().map(|what| format!("it lacks {what}")).collect(),
                ..Explanation::new("the schema lacks objects that the migrations create, nothing was recorded")
            }
            .hint("choose a lower --to, or skip this check with --unchecked"),
            MigrateError::Locked { holder, waited } => Explanation {
                caused_by: holder.iter().map(|holder| held_by("held by", holder)).collect(),
                ..Explanation::new(format!("another session holds the schema's lock, waited {}", whole(*waited)))
            }
            .hint(format!("let that session finish and {rerun}, or wait longer with {}", self.lock_wait)),
            MigrateError::InvalidIndex { script, indexes } => {
                Explanation::new(format!("{script} left an invalid index"))
                    .cause(&format!("invalid: {}", indexes.join(", ")))
                    .hint(format!("a unique index stays invalid while the data has duplicates: fix the data and {rerun}, which drops the index and builds it again"))
            }
            MigrateError::Database { doing, error } => {
                let next = match remedy(error) {
                    Some(remedy) => format!("{remedy}, then {rerun}"),
                    None => format!("fix the cause and {rerun}"),
                };
                failed(doing, error).hints(of_server(error)).hint(next)
            }
            MigrateError::InDoubt { doing, error } => Explanation {
                headline: format!("the connection was lost while {doing}, so the outcome is not known"),
                ..failed(doing, error)
            }
            .hint(format!("the server kept the whole transaction or nothing of it; {rerun}, which reads the history and continues from there")),
            MigrateError::Job { doing, error, hints } => failed(doing, error)
                .hints(of_server(error).chain(find_duplicates(error, self.is_one)))
                .hints(hints.iter().cloned()),
            MigrateError::Panicked { message } => {
                Explanation::new("pricesync has a bug and gave up on this schema")
                    .cause(message)
                    .hint("report it with this message and the output of pricesync --version")
                    .hint(format!("the server rolls back what was not committed; {rerun} once it is fixed"))
            }
        }
    }

    fn script_hints(
        &self,
        script: &ScriptRef,
        error: &ServerError,
        blockers: &[Holder],
        rolled_back: bool,
    ) -> Vec<Hint> {
        let state = error.sqlstate.as_deref().unwrap_or_default();
        let stays = match self.applied {
            _ if !rolled_back => {
                let before = match self.applied {
                    [] => String::new(),
                    _ => format!("{}; ", self.what_stays()),
                };
                format!(
                    "{before}{script} runs without a transaction, so its earlier statements stay applied and a rerun continues after them;"
                )
            }
            [] => format!("{},", self.what_stays()),
            _ => format!("{}, {script} does not;", self.what_stays()),
        };
        let next = match remedy(error) {
            Some(remedy) => remedy.to_owned(),
            None if !blockers.is_empty() => "let that session finish".to_owned(),
            None => "fix the file or the data".to_owned(),
        };
        // Undefined table, function or object: often the search path is the cause.
        let elsewhere = name_with_schema(&error.message);
        let looked = match state {
            _ if elsewhere.is_some() => String::new(),
            sqlstate::UNDEFINED_TABLE
            | sqlstate::UNDEFINED_FUNCTION
            | sqlstate::UNDEFINED_OBJECT => format!("names were looked up in {}; ", self.lookup),
            _ => String::new(),
        };
        of_server(error)
            .chain(find_duplicates(error, self.is_one))
            .chain(match elsewhere {
                Some(name) => Some(
                    format!(
                        "{name} was looked up only in the schema that is written before it; for an object of the tenant write the bare name"
                    )
                    .into(),
                ),
                None => error.defined_in.as_deref().map(find_definition),
            })
            .chain([format!("{looked}{stays} {next} and {}", self.rerun).into()])
            .collect()
    }

    fn what_stays(&self) -> String {
        match self.applied {
            [] => format!("nothing of this run stays in {}", self.name),
            [only] => format!("{} of this run stays applied in {}", only.script, self.name),
            [first, .., last] => format!(
                "{} to {} of this run stay applied in {}",
                first.script, last.script, self.name
            ),
        }
    }
}

fn details(error: &ServerError, blockers: &[Holder], attempts: u32) -> Vec<String> {
    let blocked = blockers.iter().map(|holder| held_by("blocked by", holder));
    let tried = (attempts > 1).then(|| {
        let attempts = usize::try_from(attempts).unwrap_or(usize::MAX);
        format!("gave up after {}", count(attempts, "attempt"))
    });
    error.detail.clone().map(String::from).into_iter().chain(blocked).chain(tried).collect()
}

/// Returns a blocking session and the start of its statement.
pub(in crate::ui) fn held_by(how: &str, holder: &Holder) -> String {
    let words: Vec<_> = holder.query.split_whitespace().collect();
    match words.join(" ").as_str() {
        "" => format!("{how} {holder}"),
        query => format!("{how} {holder}: {}", fit(query, QUERY)),
    }
}

fn failed(doing: &str, error: &ServerError) -> Explanation {
    Explanation {
        details: details(error, &[], 1),
        context: error.context.clone(),
        ..Explanation::new(format!("{doing} failed")).cause(error)
    }
}

fn script_failed(script: &ScriptRef, file: &str, place: Option<&Location>) -> String {
    match place {
        Some(Location { line, column: Some(column), .. }) => {
            format!("{script} failed at {file}:{line}:{column}")
        }
        Some(Location { line, .. }) => format!("{script} failed at {file}:{line}"),
        None => format!("{script} failed ({file})"),
    }
}

/// Returns the scripts that may be the cause: checks at the end of a transaction do not know which.
fn one_of(scripts: &[ScriptRef]) -> String {
    match scripts {
        [] => "a migration".to_owned(),
        [only] => only.to_string(),
        several => format!(
            "one of {}",
            several.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use snapbox::{IntoData, assert_data_eq, str};

    use super::*;
    use crate::domain::plan::Drift;
    use crate::ui::error::explanation::Detail;
    use crate::ui::test_support::*;

    fn read(error: &MigrateError) -> String {
        let target = tenant("globex");
        explain(error, &target, &[]).render(Some(target.schema.as_str()), Detail::Full, PLAIN)
    }

    #[test]
    fn a_failed_script_names_file_line_column_cause_and_next_step() {
        assert_data_eq!(read(&missing_relation()), str![[r#"
error: tenant_globex: V8__price_history_index failed at migrations/tenant/prices/V8__price_history_index.sql:12:17
  12 | create index on prices (product_id);
     |                 ^
  caused by: relation "prices" does not exist (42P01)
  hint: names were looked up in tenant_globex, then in [run] search_path; nothing of this run stays in tenant_globex, fix the file or the data and rerun with --tenant=globex

"#]].raw());
    }

    #[test]
    fn a_name_with_a_schema_is_not_said_to_be_looked_up_elsewhere() {
        let mut failed = missing_relation();
        if let MigrateError::Script { error, .. } = &mut failed {
            error.message = "relation \"public.prices\" does not exist".to_owned();
            error.defined_in = Some(Box::new(crate::domain::script::DefinedIn::NoFile));
        }
        let text = read(&failed);
        let hints: Vec<&str> = text.lines().filter(|line| line.contains("hint: ")).collect();
        assert_eq!(
            hints,
            [
                "  hint: public.prices was looked up only in the schema that is written before it; for an object of the tenant write the bare name",
                "  hint: nothing of this run stays in tenant_globex, fix the file or the data and rerun with --tenant=globex",
            ]
        );
    }

    #[test]
    fn a_lock_timeout_names_the_blocking_session() {
        let mut failed = missing_relation();
        if let MigrateError::Script { error, blockers, attempts, .. } = &mut failed {
            (*error, *blockers, *attempts) = (lock_timeout(), vec![holder()], 5);
        }
        assert_data_eq!(read(&failed), str![[r#"
error: tenant_globex: V8__price_history_index failed at migrations/tenant/prices/V8__price_history_index.sql:12:17
  12 | create index on prices (product_id);
     |                 ^
  caused by: canceling statement due to lock timeout (55P03)
  detail: blocked by pid 4121 (psql) from 10.0.0.7, for 75 s: update products set price = 1
  detail: gave up after 5 attempts
  hint: nothing of this run stays in tenant_globex, wait for the blocking session or raise --lock-timeout and rerun with --tenant=globex

"#]].raw());
    }

    #[test]
    fn every_other_failure_has_a_cause_and_a_next_step() {
        let refused = server_error(sqlstate::INSUFFICIENT_PRIVILEGE, "permission denied");
        let errors = [
            MigrateError::SchemaMissing,
            MigrateError::Locked { holder: Some(holder()), waited: Duration::from_mins(1) },
            MigrateError::Drift {
                drifts: vec![
                    Drift::Edited { script: "V1__a".into(), recorded: 1, found: 2 },
                    Drift::OutOfOrder { script: "V2__b".into(), newest: 4 },
                ],
            },
            MigrateError::Database {
                doing: "reading the history".into(),
                error: ServerError {
                    detail: Some("some detail\nof two lines".into()),
                    hint: Some("the server's hint".into()),
                    ..refused
                },
            },
            MigrateError::LeftSchema {
                scripts: vec![script(7, "a"), script(8, "b")],
                touched: vec!["public.countries (rows changed)".into()],
                allow_writes: vec!["public.countries".into()],
                by_event_trigger: false,
            },
            MigrateError::LeftTransaction {
                scripts: vec![script(8, "b")],
                why: "the transaction it ran in was ended".into(),
            },
            MigrateError::DamagedHistory {
                why: "row 3 has a checksum that is not a number: 'x'".into(),
            },
            MigrateError::InvalidIndex {
                script: script(8, "b"),
                indexes: vec!["products_sku_key".into()],
            },
            MigrateError::InDoubt {
                doing: "committing".into(),
                error: ServerError {
                    message: "connection reset by peer".into(),
                    ..ServerError::default()
                },
            },
            MigrateError::Panicked { message: "index out of bounds".into() },
        ];
        let all: String = errors.iter().map(read).collect();
        assert_data_eq!(all, str![[r#"
error: tenant_globex: the schema of tenant 'globex' does not exist
  hint: restore a backup, or create the schema without data: pricesync doctor --fix missing
error: tenant_globex: another session holds the schema's lock, waited 1 min 00 s
  caused by: held by pid 4121 (psql) from 10.0.0.7, for 75 s: update products set price = 1
  hint: let that session finish and rerun with --tenant=globex, or wait longer with --lock-wait
error: tenant_globex: files and history disagree, nothing was run
  caused by: V1__a.sql was edited after it had been applied
  caused by: V2__b.sql is older than the newest applied version 4 and was never applied
  hint: restore the file as it was applied and put the change into a new one: pricesync make-migration
  hint: give the file a version above 4
error: tenant_globex: reading the history failed
  caused by: permission denied (42501)
  detail: some detail
    of two lines
  hint: the server's hint
  hint: grant the missing privilege to the role that runs migrations, then rerun with --tenant=globex
error: tenant_globex: one of V7__a, V8__b reached outside its schema
  caused by: public.countries (rows changed)
  hint: a tenant's migration may change only its own schema, so move this statement to the shared set and rerun with --tenant=globex; nothing of this run stays in tenant_globex
  hint: or, if tenants may write there, set allow_writes = ["public.countries"] under [guard] in pricesync.toml
error: tenant_globex: V8__b changed the state of its transaction
  caused by: the transaction it ran in was ended
  hint: take transaction control, SET ROLE and SET search_path out of the file; check what was committed in tenant_globex before you rerun with --tenant=globex
error: tenant_globex: the migration history cannot be read, nothing was run
  caused by: row 3 has a checksum that is not a number: 'x'
  hint: repair that row of the history table (keep a copy of it), then rerun with --tenant=globex
error: tenant_globex: V8__b left an invalid index
  caused by: invalid: products_sku_key
  hint: a unique index stays invalid while the data has duplicates: fix the data and rerun with --tenant=globex, which drops the index and builds it again
error: tenant_globex: the connection was lost while committing, so the outcome is not known
  caused by: connection reset by peer
  hint: the server kept the whole transaction or nothing of it; rerun with --tenant=globex, which reads the history and continues from there
error: tenant_globex: pricesync has a bug and gave up on this schema
  caused by: index out of bounds
  hint: report it with this message and the output of pricesync --version
  hint: the server rolls back what was not committed; rerun with --tenant=globex once it is fixed

"#]].raw());
    }

    #[test]
    fn a_failure_of_several_schemas_names_none_of_them() {
        let error = missing_relation();
        let (acme, globex) = (tenant("acme"), tenant("globex"));
        let explanation = explain_group(&FailureGroup {
            error: &error,
            applied: &[],
            targets: vec![&acme, &globex],
        });
        let hints = explanation.hints.iter();
        assert!(!hints.map(|hint| hint.render("")).any(|hint| hint.contains("acme")));
    }
}
