//! Bare names in the tenant set that only the shared set makes: the server would look them up in
//! the tenant's schema first and then find another's, in `public`.

use std::collections::{HashMap, HashSet};

use super::load_error::{LoadError, LoadErrors, Problem};
use super::script::Script;
use super::set::MigrationSet;
use crate::domain::schema_name::SchemaName;
use crate::migrations::policy::forbidden::Refusal;
use crate::migrations::sql::keywords::Words;
use crate::migrations::sql::lexer::{Kind, Token, Tokens};
use crate::migrations::sql::position::place_of_byte;

/// A statement that lists more than this is not read to its end.
const MAX_TOKENS: usize = 8_192;

/// The name of a table or view in a statement: its first byte there, schema and name as the server folds them.
pub(crate) struct Name {
    at: usize,
    pub(crate) schema: Option<String>,
    pub(crate) table: String,
}

impl Name {
    /// Reads a name, and where it ends.
    fn read(words: Words<'_>, place: usize) -> Option<(Self, usize)> {
        let first = words.identifier(place)?;
        let at = words.offset(place)?;
        if words.raw(place + 1) != "." {
            let (schema, table) = (None, first);
            return Some((Self { at, schema, table }, place + 1));
        }
        let (schema, table) = (Some(first), words.identifier(place + 2)?);
        Some((Self { at, schema, table }, place + 3))
    }

    fn is_in_public(&self) -> bool {
        self.schema
            .as_deref()
            .is_none_or(|schema| schema == SchemaName::public().as_str())
    }
}

/// Refuses what the tenant set changes under a bare name that the shared set makes in `public` and
/// no tenant's file can be seen to make. Where code might make it, nobody can tell before it
/// runs; the guard then looks at what was done.
///
/// # Errors
///
/// Every such statement, in the order of versions.
pub fn check_bare_names(shared: &MigrationSet, tenant: &MigrationSet) -> Result<(), LoadErrors> {
    let public = made_in_public(shared);
    if public.is_empty() {
        return Ok(());
    }
    let mut changed = Vec::new();
    for script in tenant.scripts() {
        each_statement(script, |start, words| {
            let names = changed_by(words).into_iter();
            let bare = names.filter(|name| name.schema.is_none());
            let found = bare.filter(|name| public.contains_key(&name.table));
            changed.extend(found.map(|name| (script, start + name.at, name.table)));
        });
    }
    if changed.is_empty() || may_make_tables(shared) || may_make_tables(tenant) {
        return Ok(());
    }
    let own = made_by_tenants(tenant);
    let errors: Vec<LoadError> = changed
        .into_iter()
        .filter(|(_, _, table)| !own.contains(table))
        .map(|(script, at, table)| LoadError {
            path: script.path.clone(),
            place: Some(place_of_byte(&script.text, at)),
            problem: Problem::Refused(Refusal::SharedByBareName {
                maker: public[&table].clone(),
                table,
            }),
        })
        .collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(LoadErrors(errors))
    }
}

/// Calls this for each statement with its first byte in the file, and its words, whose
/// offsets count from there.
pub(crate) fn each_statement(script: &Script, mut look: impl FnMut(usize, Words<'_>)) {
    for statement in &script.statements {
        let text = &script.text[statement.range.clone()];
        let tokens: Vec<Token> = Tokens::new(text)
            .filter(|token| token.kind != Kind::LineComment)
            .take(MAX_TOKENS)
            .collect();
        look(statement.range.start, Words::new(text, &tokens));
    }
}

/// The tables and views that are in `public` when the whole shared set has run, with the script that makes each.
pub(crate) fn made_in_public(shared: &MigrationSet) -> HashMap<String, String> {
    let mut made = HashMap::new();
    for script in shared.scripts() {
        each_statement(script, |_, words| match statement(words) {
            Some(Said::Create { name, lasts: true }) if name.is_in_public() => {
                made.insert(name.table, script.id.to_string());
            }
            Some(Said::Drop(names)) => {
                for name in names.iter().filter(|name| name.is_in_public()) {
                    made.remove(&name.table);
                }
            }
            Some(Said::Alter(name, goes)) if goes && name.is_in_public() => {
                made.remove(&name.table);
            }
            _ => {}
        });
    }
    made
}

/// Every name that a tenant's file makes or may make, in whichever way.
pub(crate) fn made_by_tenants(tenant: &MigrationSet) -> HashSet<String> {
    let mut made = HashSet::new();
    for script in tenant.scripts() {
        each_statement(script, |_, words| {
            if let Some(Said::Create { name, .. }) = statement(words) {
                made.insert(name.table);
            }
            let behind = (1..words.len()).filter(|&place| {
                let into = words.is(place - 1, "into") && !words.is_any(0, &["insert", "merge"]);
                let renamed = words.is(place - 1, "to") && words.is(0, "alter");
                into || renamed || words.is(place - 1, "partition")
            });
            made.extend(behind.filter_map(|place| words.identifier(place)));
        });
    }
    made
}

/// Returns whether a text in any file speaks of making or renaming things, which may be code
/// that does so.
pub(crate) fn may_make_tables(set: &MigrationSet) -> bool {
    let speaks_of_it = |text: &str| {
        text.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
            .any(|word| {
                ["create", "drop", "rename"]
                    .iter()
                    .any(|making| word.eq_ignore_ascii_case(making))
            })
    };
    set.scripts().iter().any(|script| {
        Tokens::new(&script.text).any(|token| {
            token.kind == Kind::Literal && speaks_of_it(&script.text[token.start..token.end])
        })
    })
}

/// What a statement does with tables and views, by its first words.
pub(crate) enum Said {
    Create {
        name: Name,
        /// Whether it is there for longer than its session.
        lasts: bool,
    },
    Drop(Vec<Name>),
    /// And whether the table has another name or place afterwards.
    Alter(Name, bool),
}

pub(crate) fn statement(words: Words<'_>) -> Option<Said> {
    let skip = |from: usize, skipped: &[&str]| {
        (from..words.len()).find(|&place| !words.is_any(place, skipped))
    };
    let is_relation = |place| words.is_any(place, &["table", "view"]);
    let kind = skip(
        1,
        &[
            "or",
            "replace",
            "global",
            "local",
            "temp",
            "temporary",
            "unlogged",
            "foreign",
            "materialized",
            "recursive",
        ],
    )?;
    if !is_relation(kind) {
        return None;
    }
    let begin = skip(kind + 1, &["if", "not", "exists", "only"])?;
    if words.is(0, "create") {
        let lasts = !(1..kind).any(|place| words.is_any(place, &["temp", "temporary"]));
        let (name, _) = Name::read(words, begin)?;
        return Some(Said::Create { name, lasts });
    }
    if words.is(0, "drop") {
        return Some(Said::Drop(list(words, begin)));
    }
    if words.is(0, "alter") {
        let (name, end) = Name::read(words, begin)?;
        let goes = (end..words.len()).any(|place| {
            words.is(place, "rename") && words.is(place + 1, "to")
                || words.is(place, "set") && words.is(place + 1, "schema")
        });
        return Some(Said::Alter(name, goes));
    }
    None
}

/// `a, ONLY b *, c.d`
fn list(words: Words<'_>, begin: usize) -> Vec<Name> {
    let mut names = Vec::new();
    let mut place = begin;
    loop {
        if words.is(place, "only") {
            place += 1;
        }
        let Some((name, end)) = Name::read(words, place) else {
            return names;
        };
        names.push(name);
        place = end + usize::from(words.raw(end) == "*");
        if words.raw(place) != "," {
            return names;
        }
        place += 1;
    }
}

/// Returns what a statement changes: rows, or what the table is like.
fn changed_by(words: Words<'_>) -> Vec<Name> {
    let one = |place: usize| {
        let place = place + usize::from(words.is(place, "only"));
        Name::read(words, place).map(|(name, _)| name)
    };
    // The first ON of an index, a trigger or a policy stands before its table.
    let behind = |word: &'static str| words.places(word).next().and_then(|place| one(place + 1));
    let one_of_them = match words.raw(0).to_ascii_lowercase().as_str() {
        "insert" | "merge" if words.is(1, "into") => one(2),
        "delete" if words.is(1, "from") => one(2),
        "update" => one(1),
        "truncate" => return list(words, 1 + usize::from(words.is(1, "table"))),
        "copy" if words.places("from").next().is_some() => one(1),
        "create" => {
            let kind = (1..words.len())
                .find(|&place| !words.is_any(place, &["or", "replace", "unique", "constraint"]));
            match kind {
                Some(kind) if words.is_any(kind, &["index", "trigger", "policy"]) => behind("on"),
                Some(kind) if words.is(kind, "rule") => behind("to"),
                _ => None,
            }
        }
        _ => match statement(words) {
            Some(Said::Drop(names)) => return names,
            Some(Said::Alter(name, _)) => Some(name),
            _ => None,
        },
    };
    one_of_them.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::script::Scope;

    const SHARED: &str = "create table plans (id int primary key); create view public.cheap as select * from plans;\
         create table \"Odd Name\" (id int); create table gone (id int); drop table gone;\
         create table was (id int); alter table was rename to is_now; create table other.elsewhere (id int);\
         create temp table scratch (id int)";

    fn refused(shared: &str, tenant: &[&str]) -> Vec<String> {
        let shared = MigrationSet::embedded(Scope::Shared, &[("V1__shared.sql", shared)]).unwrap();
        let names: Vec<String> = (1..=tenant.len())
            .map(|number| format!("V{number}__t.sql"))
            .collect();
        let files: Vec<(&str, &str)> = (names.iter().map(String::as_str))
            .zip(tenant.iter().copied())
            .collect();
        let tenant = MigrationSet::embedded(Scope::Tenant, &files).unwrap();
        match check_bare_names(&shared, &tenant) {
            Ok(()) => Vec::new(),
            Err(LoadErrors(errors)) => errors.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn what_only_the_shared_set_makes_is_not_the_tenants_to_change() {
        for (sql, places) in [
            ("drop table plans", vec!["1:12"]),
            ("DROP TABLE IF EXISTS own, Plans CASCADE", vec!["1:27"]),
            ("drop view cheap", vec!["1:11"]),
            ("alter table only plans add column a int", vec!["1:18"]),
            ("alter table if exists \"plans\" rename to p", vec!["1:23"]),
            ("select 1;\ninsert into plans values (1)", vec!["2:13"]),
            ("update only plans set id = 2", vec!["1:13"]),
            ("delete from \"Odd Name\"", vec!["1:13"]),
            ("truncate own, plans, cheap", vec!["1:15", "1:22"]),
            (
                "merge into plans p using own o on p.id = o.id when matched then do nothing",
                vec!["1:12"],
            ),
            ("copy plans (id) from '/tmp/x'", vec!["1:6"]),
            (
                "create unique index if not exists i on plans (id)",
                vec!["1:40"],
            ),
            (
                "create constraint trigger t after update of id on plans for each row execute function f()",
                vec!["1:51"],
            ),
            (
                "create rule r as on insert to plans do nothing",
                vec!["1:31"],
            ),
            ("create policy p on plans using (true)", vec!["1:20"]),
        ] {
            let found = refused(SHARED, &["create table own (id int)", sql]);
            let found: Vec<String> = found
                .iter()
                .map(|error| error.split(": ").next().unwrap().to_owned())
                .collect();
            let places: Vec<String> = places
                .iter()
                .map(|place| format!("V2__t.sql:{place}"))
                .collect();
            assert_eq!(found, places, "{sql}");
        }
    }

    #[test]
    fn what_a_tenants_file_may_make_is_the_tenants() {
        for tenant in [
            "create table plans (id int); update plans set id = 1",
            "create table if not exists plans (); drop table plans",
            "create temp table plans as select 1 as id; insert into plans values (2)",
            "create table old (id int); alter table old rename to plans; delete from plans",
            "create view plans as select 1 as id; drop view plans",
            "select 1 as id into plans; drop table plans",
            "with x as (select 1 as id) select * into plans from x; drop table plans",
            "do $$ begin execute 'create table pl' || 'ans (id int)'; end $$; drop table plans",
            "update gone set id = 1; update was set id = 1",
            "insert into elsewhere values (1); insert into scratch values (1)",
            "create table a (plan int references plans); create view v as select * from plans",
            "insert into own select * from plans; update own set id = plans.id from plans",
            "copy plans to '/tmp/x'; create index plans on own (id)",
            "comment on column own.plans is 'x'",
        ] {
            assert_eq!(refused(SHARED, &[tenant]), Vec::<String>::new(), "{tenant}");
        }
        // The order of versions is not asked for: a schema may have been adopted as it was.
        let later = [
            "update plans set id = 1",
            "create table if not exists plans (id int)",
        ];
        assert_eq!(refused(SHARED, &later), Vec::<String>::new());
        let by_code = "create table plans (id int); do $$ begin execute 'drop table plans'; end $$";
        assert_eq!(
            refused(by_code, &["update plans set id = 1"]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn the_words_name_the_shared_script() {
        assert_eq!(
            refused(SHARED, &["update plans set id = 1"]),
            [
                "V1__t.sql:1:8: 'plans' is made by V1__shared of the shared set and by no tenant's file, \
                 so this would change public"
            ]
        );
    }
}
