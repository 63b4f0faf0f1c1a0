//! Whether statements do the same in every empty schema, at any time.
//!
//! Two runs of the files in two schemas show most of what differs: random values, the clock, the
//! schema's name. This module finds what two runs that follow each other do not show: days and
//! conditions on the clock, data of other schemas, catalogs of the whole server, messages. It also
//! reads the functions that a statement calls by name, but not those that triggers call.

use std::collections::HashSet;

use super::volatile::{Problem, Volatile, is_in, time_literal};
use crate::migrations::sql::catalogs;
use crate::migrations::sql::code::{MAX_DEPTH, with_code};
use crate::migrations::sql::keywords::Keywords;
use crate::migrations::sql::lexer::{Lexer, TokenKind};
use crate::migrations::sql::relations::{RelationChange, change, changed};

/// Functions that return a row even if there is none to read, unless rows are grouped.
const AGGREGATES: &str = "count sum max min avg array_agg string_agg json_agg jsonb_agg json_object_agg \
     jsonb_object_agg bool_or bool_and every";

/// First words of statements that change rows.
const CHANGES: &[&str] = &["insert", "with", "merge", "update", "delete"];

/// What may precede a parenthesis in a query that has no effect: keywords, and functions without one.
const QUIET: &str = "all and any as between by case cast coalesce count date_trunc else exists extract \
     filter from greatest in join least length lower max min not now nullif on or over \
     select sum then to_regclass to_regtype upper when where";

/// Follows the statements of all files, in their order.
pub(crate) struct Determinism<'a> {
    names: Volatile<'a>,
    /// Tables and views that the files create.
    created: HashSet<String>,
    /// Tables that may have rows.
    filled: HashSet<String>,
    /// Whether any table may have rows, because code builds the names.
    all_filled: bool,
}

impl<'a> Determinism<'a> {
    pub(crate) fn new(outside: &'a HashSet<String>) -> Self {
        Self {
            names: Volatile::new(outside),
            created: HashSet::new(),
            filled: HashSet::new(),
            all_filled: false,
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
            let (at, why) = self.names.problem(level)?;
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
        let problem = with_code(sql, 0, MAX_DEPTH, &mut |_, level| self.names.problem(level));
        let problem = problem.map(|(_, why)| why).or_else(|| {
            let (_, catalog) = catalogs::without_schema(sql)?;
            Some(format!("{catalog} is read without a condition on the schema"))
        });
        let kind = (1..4).find(|&index| keywords.is_any(index, &["function", "procedure"]))?;
        let name = if keywords.text(kind + 2) == "." { kind + 3 } else { kind + 1 };
        if let (Some(name), Some(why)) = (keywords.identifier(name), problem) {
            self.names.taint(name, why);
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

    /// Returns whether a query or a change reads only tables that are certainly empty, so that it
    /// writes no row whatever its expressions are.
    fn reads_empty_tables(&self, keywords: Keywords<'_>) -> bool {
        let count = |word: &'static str| keywords.positions(word).count();
        let is_call = |index: usize| keywords.kind(index + 1) == Some(TokenKind::Open);
        let other_from: usize = ["extract", "substring", "trim", "overlay", "distinct"]
            .iter()
            .map(|it| count(it))
            .sum();
        let changes = ["insert", "update", "delete", "merge"].iter().any(|word| count(word) > 0);
        let is_query = keywords.is(0, "select") && count("into") == 0;
        let is_known = (is_query || changes && keywords.is_any(0, CHANGES))
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
                    is_call(index) && is_in(AGGREGATES, &name) && count("group") == 0;
                let is_unknown = is_query && is_call(index) && !is_in(QUIET, &name);
                !(self.filled.contains(&name)
                    || is_unknown
                    || name == "public"
                    || self.names.is_outside(&name)
                    || is_source && is_call(index) && !keywords.is(index, "lateral")
                    || is_aggregate)
            })
    }
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
            "insert into t (a, at) values (1, now()), (2, current_timestamp); insert into t select 1, now() as at",
            "insert into t values (1); update t set at = now() where id = 1; alter table t add d timestamptz default now() not null",
            "select 1 / (case when exists (select 1 from t where at > now()) then 0 else 1 end)",
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
            "insert into t values (now() + interval '1 day')",
            "insert into t values (date_trunc('day', now()))",
            "insert into t (d) select case when now() > '2030-01-01' then 1 end",
            "do $$ declare v timestamptz := now(); begin insert into t values (v::date); end $$",
            "insert into t values (1); select 1 / count(*) from t where at < now()",
            "select f(now()) from t",
            "insert into t values (current_date)",
            "insert into t values ('today')",
            "insert into t values (1); update t set d = current_date",
            "insert into t values (1); alter table t rename to u; delete from u where at < now()",
            "insert into t values (1); alter table t add d date default current_date",
            "insert into t select count(*), random() from a",
            "insert into t select random() from generate_series(1, 2)",
            "insert into t select random() where not exists (select from t)",
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
            why("create table t ();\n\ndo $$ begin\n  insert into t values (now()::date);\nend $$")
                .unwrap(),
            "V1__x, line 4: now() is the time at which the statement runs"
        );
    }
}
