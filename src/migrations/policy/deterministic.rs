//! Whether statements do the same in every empty schema, at any time.
//!
//! Two runs of the files in two schemas show most of what differs: random values, the clock, the
//! schema's name. This module finds what two runs that follow each other do not show: days and
//! conditions on the clock, data of other schemas, catalogs of the whole server, messages. It also
//! reads the functions that a statement calls by name, but not those that triggers call.

use std::collections::{HashMap, HashSet};

use crate::migrations::sql::catalogs;
use crate::migrations::sql::keywords::Keywords;
use crate::migrations::sql::lexer::{Lexer, Token, TokenKind};
use crate::migrations::sql::relations::{RelationChange, change, changed};

/// How deep strings within code are read.
const MAX_DEPTH: usize = 4;

/// Keywords that are the time, without parentheses.
const CLOCK: &[&str] =
    &["current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"];

/// Functions by what is wrong with them.
const FUNCTIONS: [(&str, &[&str]); 3] = [
    (
        "is the time at which the statement runs",
        &[
            "now",
            "clock_timestamp",
            "statement_timestamp",
            "transaction_timestamp",
            "timeofday",
            "age",
        ],
    ),
    (
        "returns another value in each run",
        &[
            "random",
            "random_normal",
            "setseed",
            "gen_random_uuid",
            "gen_random_bytes",
            "gen_salt",
            "uuid_generate_v1",
            "uuid_generate_v1mc",
            "uuid_generate_v4",
            "uuidv4",
            "uuidv7",
        ],
    ),
    (
        "reads or changes something outside of the schema",
        &[
            "pg_notify",
            "pg_backend_pid",
            "inet_client_addr",
            "inet_client_port",
            "txid_current",
            "pg_current_xact_id",
            "pg_read_file",
            "pg_read_binary_file",
            "pg_ls_dir",
            "pg_has_role",
            "to_regrole",
            "dblink",
            "dblink_exec",
        ],
    ),
];

/// Catalogs of the whole database or server.
const SERVER_CATALOGS: &[&str] = &[
    "pg_roles",
    "pg_authid",
    "pg_user",
    "pg_shadow",
    "pg_auth_members",
    "pg_database",
    "pg_settings",
    "pg_db_role_setting",
    "pg_extension",
    "pg_available_extensions",
    "pg_tablespace",
    "pg_stat_activity",
];

/// Functions that return a row even if there is none to read, unless rows are grouped.
const AGGREGATES: &[&str] = &[
    "count",
    "sum",
    "max",
    "min",
    "avg",
    "array_agg",
    "string_agg",
    "json_agg",
    "jsonb_agg",
    "json_object_agg",
    "jsonb_object_agg",
    "bool_or",
    "bool_and",
    "every",
];

/// The byte in a statement, and why the statement does not do the same in every empty schema.
type Problem = (usize, String);

/// Follows the statements of all files, in their order.
pub(crate) struct Determinism<'a> {
    /// Tables of other schemas that the files lock when they run.
    outside: &'a HashSet<String>,
    /// Tables and views that the files create.
    created: HashSet<String>,
    /// Tables that may have rows.
    filled: HashSet<String>,
    /// Whether any table may have rows, because code builds the names.
    all_filled: bool,
    /// Functions with a problem in their code.
    tainted: HashMap<String, String>,
}

impl<'a> Determinism<'a> {
    pub(crate) fn new(outside: &'a HashSet<String>) -> Self {
        Self {
            outside,
            created: HashSet::new(),
            filled: HashSet::new(),
            all_filled: false,
            tainted: HashMap::new(),
        }
    }

    /// Reads the next statement and returns its first problem.
    pub(crate) fn read(&mut self, sql: &str) -> Option<Problem> {
        let tokens = Lexer::statement(sql);
        let keywords = Keywords::new(sql, &tokens);
        let writes_empty_table = |this: &Self| {
            let changed = changed(keywords);
            changed.iter().all(|(_, name)| !this.may_have_rows(&name.relation))
        };
        match keywords.text(0).to_ascii_lowercase().as_str() {
            "create" if keywords.creates_routine() => self.routine(sql, keywords),
            "create" => {
                let name = created(keywords);
                self.created.extend(name.clone());
                if !runs_query(keywords) {
                    return self.copied(keywords).or_else(|| time_literal(keywords));
                }
                self.filled.extend(name);
                self.executed(sql, false)
            }
            "alter" if keywords.is(1, "table") => {
                let is_empty = writes_empty_table(self);
                self.rename(keywords);
                if is_empty { time_literal(keywords) } else { self.executed(sql, false) }
            }
            "update" | "delete" if writes_empty_table(self) => None,
            "alter" => keywords.is(1, "domain").then(|| time_literal(keywords))?,
            "analyze" | "cluster" | "comment" | "deallocate" | "drop" | "grant" | "listen"
            | "lock" | "refresh" | "reindex" | "reset" | "revoke" | "security" | "set" | "show"
            | "truncate" | "unlisten" => None,
            word @ ("copy" | "notify" | "import" | "load") => {
                let word = word.to_ascii_uppercase();
                Some((0, format!("{word} reads or changes something outside of the schema")))
            }
            _ if self.reads_empty_tables(keywords) => None,
            word => self.executed(sql, matches!(word, "do" | "call")),
        }
    }

    fn may_have_rows(&self, table: &str) -> bool {
        self.all_filled || self.filled.contains(table)
    }

    /// Returns the problem of a statement that is executed, and notes the tables that it fills.
    fn executed(&mut self, sql: &str, is_code: bool) -> Option<Problem> {
        let problem = with_code(sql, 0, if is_code { MAX_DEPTH } else { 0 }, &mut |base, level| {
            let (at, why) = self.problem(level)?;
            Some((base + at, why))
        });
        if problem.is_some() {
            return problem;
        }
        if let Some((at, catalog)) = catalogs::without_schema(sql) {
            return Some((at, format!("{catalog} is read without a condition on the schema")));
        }
        self.fill(sql, if is_code { MAX_DEPTH } else { 0 });
        None
    }

    /// Notes the function's problem, which matters where the function is called, and the tables that it
    /// may fill.
    fn routine(&mut self, sql: &str, keywords: Keywords<'_>) -> Option<Problem> {
        let problem = with_code(sql, 0, MAX_DEPTH, &mut |_, level| self.problem(level));
        let problem = problem.map(|(_, why)| why).or_else(|| {
            let (_, catalog) = catalogs::without_schema(sql)?;
            Some(format!("{catalog} is read without a condition on the schema"))
        });
        let kind = (1..4).find(|&index| keywords.is_any(index, &["function", "procedure"]))?;
        let name = if keywords.text(kind + 2) == "." { kind + 3 } else { kind + 1 };
        if let (Some(name), Some(why)) = (keywords.identifier(name), problem) {
            self.tainted.insert(name, why);
        }
        self.fill(sql, MAX_DEPTH);
        self.copied(keywords)
    }

    /// Notes the tables that SQL, and the code in it down to a depth, inserts into.
    fn fill(&mut self, sql: &str, depth: usize) {
        with_code::<()>(sql, 0, depth, &mut |_, level| {
            for index in level.positions("into") {
                let skipped = ["only", "temp", "temporary", "unlogged", "table"];
                let at = (index + 1..=level.len()).find(|&at| !level.is_any(at, &skipped))?;
                let at = if level.text(at + 1) == "." { at + 2 } else { at };
                match level.identifier(at) {
                    Some(table) => {
                        self.created.insert(table.clone());
                        self.filled.insert(table);
                    }
                    None => self.all_filled = true,
                }
            }
            None
        });
    }

    /// Follows `ALTER TABLE a RENAME TO b`.
    fn rename(&mut self, keywords: Keywords<'_>) {
        let renamed = keywords
            .positions("rename")
            .find(|&index| keywords.is(index + 1, "to"))
            .and_then(|index| {
                Some((changed(keywords).first()?.1.clone(), keywords.identifier(index + 2)?))
            });
        if let Some((old, new)) = renamed {
            if self.filled.contains(&old.relation) {
                self.filled.insert(new.clone());
            }
            self.created.insert(new);
        }
    }

    /// Finds clauses that copy the definition of a table which the files do not create.
    fn copied(&self, keywords: Keywords<'_>) -> Option<Problem> {
        let is_foreign = |at: usize| {
            let name = keywords.identifier(at)?;
            let is_qualified = keywords.text(at + 1) == "." || keywords.text(at - 1) == ".";
            (is_qualified || !self.created.contains(&name)).then_some((at, name))
        };
        let like = keywords.positions("like").find_map(|index| {
            let is_clause = matches!(keywords.text(index - 1), "(" | ",");
            is_clause.then(|| is_foreign(index + 1))?
        });
        let copied = like.or_else(|| {
            let of_column = |&index: &usize| index > 4 && keywords.text(index - 1) == "%";
            keywords.positions("type").filter(of_column).find_map(|index| is_foreign(index - 4))
        });
        let (at, name) = copied?;
        Some((
            keywords.offset(at)?,
            format!("it copies the definition that {name} has at that moment"),
        ))
    }

    /// Returns the first name or call that is not the same in every run.
    fn problem(&self, level: Keywords<'_>) -> Option<Problem> {
        (0..level.len()).find_map(|at| {
            let why = self.problem_at(level, at)?;
            Some((level.offset(at)?, why))
        })
    }

    fn problem_at(&self, level: Keywords<'_>, at: usize) -> Option<String> {
        let previous = if at > 0 { level.text(at - 1) } else { "" };
        if level.kind(at) == Some(TokenKind::Literal) {
            let is_name = previous == "(" && at > 1 && is_to_regclass(level.text(at - 2))
                || level.text(at + 1) == ":";
            let text = level.text(at).trim_matches('\'');
            let of_public = is_name && text.starts_with("public.");
            return of_public
                .then(|| format!("it depends on {text}, which may change"))
                .or_else(|| is_time(level.text(at)).then(|| format!("'{text}' is a time")));
        }
        let name = level.identifier(at)?;
        let is_call = level.kind(at + 1) == Some(TokenKind::Open);
        if is_call {
            let list = FUNCTIONS.iter().find(|(_, names)| names.contains(&&*name));
            if let Some((why, _)) = list {
                return Some(format!("{name}() {why}"));
            }
            let version = ["'server_version_num'", "'server_version'"];
            if name == "current_setting" && !version.contains(&level.text(at + 2)) {
                return Some("it reads a setting, which may change".to_owned());
            }
            if let Some(why) = self.tainted.get(&name) {
                return Some(format!("it calls {name}: {why}"));
            }
            return None;
        }
        if previous != "." && level.is_any(at, CLOCK) {
            return Some(format!("{name} is the time at which the statement runs"));
        }
        if SERVER_CATALOGS.contains(&&*name) {
            return Some(format!("{name} belongs to the whole server and may change"));
        }
        let follows = ["from", "join", "into", "update", "using", "table", "only", ","];
        if name == "public"
            && level.text(at + 1) == "."
            && follows.iter().any(|word| previous.eq_ignore_ascii_case(word))
            && level.kind(at + 3) != Some(TokenKind::Open)
        {
            return Some(format!("it depends on public.{}, which may change", level.text(at + 2)));
        }
        self.outside
            .contains(&name)
            .then(|| format!("it depends on {name} of another schema, which may change"))
    }

    /// Returns whether a query or a change reads only tables that are certainly empty, so that it
    /// writes no row whatever its expressions are.
    fn reads_empty_tables(&self, keywords: Keywords<'_>) -> bool {
        let count = |word: &'static str| keywords.positions(word).count();
        let is_call = |index: usize| keywords.kind(index + 1) == Some(TokenKind::Open);
        let other_from: usize = ["extract", "substring", "trim", "overlay", "distinct"]
            .iter()
            .map(|it| count(it))
            .sum();
        let is_known = keywords.is_any(0, &["insert", "with", "merge", "update", "delete"])
            && ["insert", "update", "delete", "merge"].iter().any(|word| count(word) > 0)
            && ["values", "default", "right", "full"].iter().all(|word| count(word) == 0)
            && count("from") >= count("select") + other_from;
        is_known
            && !self.all_filled
            && (0..keywords.len()).all(|index| {
                let Some(name) = keywords.identifier(index) else {
                    return true;
                };
                let is_source = index > 0 && keywords.is_any(index - 1, &["from", "join"]);
                let is_aggregate =
                    is_call(index) && AGGREGATES.contains(&&*name) && count("group") == 0;
                !(self.filled.contains(&name)
                    || name == "public"
                    || self.outside.contains(&name)
                    || is_source && is_call(index) && !keywords.is(index, "lateral")
                    || is_aggregate)
            })
    }
}

fn is_to_regclass(word: &str) -> bool {
    word.to_ascii_lowercase().starts_with("to_reg")
}

/// Returns the name of the table or view that a statement creates.
fn created(keywords: Keywords<'_>) -> Option<String> {
    let materialized = keywords.positions("view").next().and_then(|index| {
        let exists = if keywords.is(index + 1, "if") { 3 } else { 0 };
        keywords.is(1, "materialized").then(|| keywords.identifier(index + 1 + exists))?
    });
    materialized.or_else(|| match change(keywords) {
        Some(RelationChange::Create { name: (_, name), .. }) => Some(name.relation),
        _ => None,
    })
}

/// Returns whether a `CREATE` runs a query: `CREATE TABLE AS`, or a materialized view.
fn runs_query(keywords: Keywords<'_>) -> bool {
    let query = ["select", "values", "with", "table", "execute"];
    let is_query = |index: usize| {
        let open = usize::from(keywords.kind(index + 1) == Some(TokenKind::Open));
        keywords.is_any(index + 1 + open, &query)
    };
    let is_table = (1..4).any(|index| keywords.is(index, "table"));
    keywords.is(1, "materialized") || is_table && keywords.positions("as").any(is_query)
}

/// Finds a literal in a definition that is stored as the time at which it is read.
fn time_literal(keywords: Keywords<'_>) -> Option<Problem> {
    if keywords.is(1, "type") {
        return None;
    }
    let is_literal =
        |&at: &usize| keywords.kind(at) == Some(TokenKind::Literal) && is_time(keywords.text(at));
    let at = (0..keywords.len()).find(is_literal)?;
    Some((
        keywords.offset(at)?,
        format!("{} becomes the time at which the statement runs", keywords.text(at)),
    ))
}

/// Returns whether a string is input that the server resolves to a time when it reads it (manual
/// section 8.5.1.4), perhaps with a time of day: `'now'`, `'today 12:00'`.
fn is_time(literal: &str) -> bool {
    let Some((_, text)) = literal.split_once('\'').filter(|_| !literal.starts_with('$')) else {
        return false;
    };
    let mut words = text.trim_end_matches('\'').split_whitespace();
    let first = words.next().unwrap_or_default();
    ["now", "today", "tomorrow", "yesterday"].iter().any(|it| first.eq_ignore_ascii_case(it))
        && words.all(|word| word.starts_with(|letter: char| letter.is_ascii_digit()))
}

/// Calls `visit` with the tokens of SQL and, down to a depth, with those of each string in it, until it
/// returns a value. Bytes count from the first of the two arguments.
fn with_code<T>(
    sql: &str,
    base: usize,
    depth: usize,
    visit: &mut impl FnMut(usize, Keywords<'_>) -> Option<T>,
) -> Option<T> {
    let comment = |token: &Token| token.kind == TokenKind::LineComment;
    let tokens: Vec<Token> = Lexer::new(sql).filter(|token| !comment(token)).collect();
    visit(base, Keywords::new(sql, &tokens)).or_else(|| {
        let strings = tokens.iter().filter(|token| depth > 0 && token.kind == TokenKind::Literal);
        strings.into_iter().find_map(|token| {
            let literal = &sql[token.start..token.end];
            let inside = match literal.strip_prefix('$') {
                Some(tagged) => {
                    let tag = tagged.find('$')? + 2;
                    tag..literal.len().checked_sub(tag)?
                }
                None => literal.find('\'')? + 1..literal.len() - 1,
            };
            let start = base + token.start + inside.start;
            with_code(literal.get(inside)?, start, depth - 1, visit)
        })
    })
}

/// Returns whether a statement, or code in it, names the table.
pub(crate) fn names_table(sql: &str, table: &str) -> bool {
    let named = with_code(sql, 0, MAX_DEPTH, &mut |_, level| {
        let is_it = |index: usize| level.identifier(index).as_deref() == Some(table);
        (0..level.len()).any(is_it).then_some(())
    });
    named.is_some()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::domain::script::Scope;
    use crate::migrations::{Script, obstacle};

    fn why(text: &str) -> Option<String> {
        let path = Path::new("V1__x.sql");
        let script = Script::read(path, text.as_bytes().to_vec(), Scope::Tenant)
            .unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
        obstacle(&[&script], &HashSet::from(["plans".to_owned()]))
    }

    #[test]
    fn definitions_and_seeds_are_deterministic() {
        for text in [
            "create table t (id bigint generated by default as identity primary key, at timestamptz default now(), check (name like 'x%'), name text)",
            "create table if not exists a (b serial references public.c, c int references plans)",
            "alter table a add column b date default current_date, drop column c; alter table a rename to d",
            "create type mood as enum ('today'); alter type mood add value 'now'",
            "create view v as select * from t where at > now(); drop view v",
            "create function f() returns trigger language plpgsql as $$ begin insert into log values (now()); return new; end $$",
            "create trigger t before insert on a for each row execute function f()",
            "comment on table t is 'now'",
            "update t set a = now() where b is null; delete from t where at < current_date",
            "create table u (); create table t (like u); create table p partition of t default",
            "insert into t values (1, 'right now', 'a table of public.x')",
            "do $$ begin insert into t values (1); raise notice 'done now'; end $$",
            "insert into t select gen_random_uuid(), now() from a left join b using (id)",
            "with x as (select id from a) update t set at = now() from x where x.id = t.id",
            "select setval('s', 7); create table t as select 1 as a",
            "create materialized view v as select * from t; refresh materialized view v",
            "grant select on t to public; set local work_mem = '1MB'; truncate t",
            "do $$ begin if to_regtype('mood') is null then create type mood as enum (); end if; end $$",
            "do $$ begin if current_setting('server_version_num')::int > 1 then perform 1; end if; end $$",
            "create temp table x as select 1 as a; insert into t select a from x",
            "-- only a comment",
        ] {
            assert_eq!(why(text), None, "{text}");
        }
    }

    #[test]
    fn what_two_runs_may_not_show_is_found() {
        for text in [
            "insert into t values (now())",
            "insert into t values (current_date)",
            "insert into t values ('today')",
            "insert into t values (1); update t set d = current_date",
            "insert into t values (1); alter table t rename to u; delete from u where at < now()",
            "insert into t values (1); alter table t add d date default current_date",
            "insert into t select count(*), now() from a",
            "insert into t select now() from generate_series(1, 2)",
            "insert into t select now() where not exists (select from t)",
            "do $$ begin execute 'insert into ' || 't values (random())'; end $$",
            "do $$ begin execute format('insert into %I values (1)', 't'); end $$; update t set a = now()",
            "create function f() returns int language sql as 'select extract(year from now())'; select f()",
            "do $$ begin if exists (select from public.plans) then perform 1; end if; end $$",
            "insert into t select id from public.plans",
            "insert into t select id from plans",
            "select 'public.plans'::regclass",
            "do $$ begin if to_regclass('public.x') is null then perform 1; end if; end $$",
            "do $$ begin if exists (select from pg_roles) then perform 1; end if; end $$",
            "do $$ begin if exists (select from pg_type where typname = 'x') then perform 1; end if; end $$",
            "select pg_notify('a', 'b')",
            "notify a",
            "copy t from '/tmp/x'",
            "create table t (like public.other)",
            "create table t (like other)",
            "create function f(a public.t.b%type) returns int language sql as 'select 1'",
            "create table t (a timestamptz default 'now')",
            "create table t (a timestamptz default ' TODAY 12:00')",
            "create table t (a date default E'tomorrow'::date)",
        ] {
            assert!(why(text).is_some(), "{text}");
        }
    }

    #[test]
    fn the_reason_names_the_script_and_the_line() {
        assert_eq!(
            why("create table t ();\n\ndo $$ begin\n  insert into t values (now());\nend $$")
                .unwrap(),
            "V1__x, line 4: now() is the time at which the statement runs"
        );
    }
}
