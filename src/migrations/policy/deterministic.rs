//! Whether statements do the same in every empty schema, at any time.
//!
//! Two runs of the files in two schemas show most of what differs: random values, the clock, the
//! schema's name. This module finds what two runs that follow each other do not show: days and
//! conditions on the clock, data of other schemas, catalogs of the whole server, messages. It also
//! reads the functions that a statement calls by name, but not those that triggers call.

use std::collections::HashSet;

use super::filled::{Tables, is_definition};
use super::volatile::{Problem, Volatile, time_literal};
use crate::migrations::sql::catalogs;
use crate::migrations::sql::code::{MAX_DEPTH, with_code};
use crate::migrations::sql::keywords::Keywords;
use crate::migrations::sql::lexer::{Lexer, TokenKind};

/// Follows the statements of all files, in their order.
pub(crate) struct Determinism<'a> {
    names: Volatile<'a>,
    tables: Tables,
}

impl<'a> Determinism<'a> {
    pub(crate) fn new(outside: &'a HashSet<String>) -> Self {
        Self { names: Volatile::new(outside), tables: Tables::default() }
    }

    /// Reads the next statement and returns its first problem.
    pub(crate) fn read(&mut self, sql: &str) -> Option<Problem> {
        let tokens = Lexer::statement(sql);
        let keywords = Keywords::new(sql, &tokens);
        if keywords.creates_routine() {
            self.routine(sql, keywords);
            return self.copied(keywords);
        }
        if !keywords.is_any(0, &["do", "call"]) {
            self.tables.note(keywords, &self.names);
            let problem = self.problem(keywords);
            let reads = ["select", "insert", "update", "delete", "with", "merge"];
            let is_read =
                keywords.is_any(0, &reads) && !self.tables.are_unchanged_by(keywords, &self.names);
            return problem.or_else(|| is_read.then(|| without_schema(sql))?);
        }
        // A loop may read what a later statement of it writes.
        let mut notes = None;
        while notes != Some(self.tables.size()) {
            notes = Some(self.tables.size());
            with_code::<()>(sql, 0, MAX_DEPTH, &mut |_, level| {
                for statement in statements(level) {
                    self.tables.note(statement, &self.names);
                }
                None
            });
        }
        let problem = with_code(sql, 0, MAX_DEPTH, &mut |base, level| {
            let mut statements = statements(level).into_iter();
            let (at, why) = statements.find_map(|statement| self.problem(statement))?;
            Some((base + at, why))
        });
        problem.or_else(|| without_schema(sql))
    }

    /// Returns the problem of a statement, whose effect on tables is noted.
    fn problem(&self, keywords: Keywords<'_>) -> Option<Problem> {
        let word = keywords.text(0).to_ascii_lowercase();
        if matches!(&*word, "copy" | "notify" | "import" | "load") {
            let word = word.to_ascii_uppercase();
            return Some((
                keywords.offset(0)?,
                format!("{word} reads or changes something outside of the schema"),
            ));
        }
        if is_definition(keywords) {
            let stores = keywords.is(0, "create") || keywords.is(1, "domain");
            return self.copied(keywords).or_else(|| stores.then(|| time_literal(keywords))?);
        }
        if self.tables.are_unchanged_by(keywords, &self.names) {
            return time_literal(keywords).filter(|_| keywords.is(0, "alter"));
        }
        self.names.problem(keywords)
    }

    /// Notes the function's problem, which matters where the function is called.
    fn routine(&mut self, sql: &str, keywords: Keywords<'_>) {
        let problem = with_code(sql, 0, MAX_DEPTH, &mut |_, level| self.names.problem(level));
        let why = problem.or_else(|| without_schema(sql)).map(|(_, why)| why);
        let kind = (1..4).find(|&at| keywords.is_any(at, &["function", "procedure"]));
        let kind = kind.unwrap_or_default();
        let name = if keywords.text(kind + 2) == "." { kind + 3 } else { kind + 1 };
        let Some(name) = keywords.identifier(name) else {
            return;
        };
        with_code::<()>(sql, 0, MAX_DEPTH, &mut |_, level| {
            self.tables.note_code(&name, level);
            None
        });
        if let Some(why) = why {
            self.names.taint(name, why);
        }
    }

    /// Finds clauses that copy the definition of a table which the files do not create.
    fn copied(&self, keywords: Keywords<'_>) -> Option<Problem> {
        let is_foreign = |at: usize| {
            let name = keywords.identifier(at)?;
            let is_qualified = keywords.text(at + 1) == "." || keywords.text(at - 1) == ".";
            (is_qualified || !self.tables.is_created(&name)).then_some((at, name))
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
}

fn without_schema(sql: &str) -> Option<Problem> {
    let (at, catalog) = catalogs::without_schema(sql)?;
    Some((at, format!("{catalog} is read without a condition on the schema")))
}

/// Splits code into its statements.
fn statements(level: Keywords<'_>) -> Vec<Keywords<'_>> {
    let starts = [
        "alter", "create", "delete", "drop", "execute", "for", "if", "insert", "merge", "perform",
        "raise", "return", "select", "update", "with",
    ];
    let begins = |index: usize| {
        level.kind(index) == Some(TokenKind::Semicolon)
            || level.is_any(index, &["begin", "then", "else", "loop"])
                && level.is_any(index + 1, &starts)
    };
    let ends: Vec<usize> = (0..level.len()).filter(|&index| begins(index)).collect();
    let from = std::iter::once(0).chain(ends.iter().map(|end| end + 1));
    from.zip(ends.iter().copied().chain([level.len()]))
        .map(|(start, end)| level.slice(start..end))
        .collect()
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
            "insert into t values (1); do $$ begin if not exists (select from t) then insert into t values (now()); end if; end $$",
            "create table a (); do $$ begin insert into t select gen_random_uuid() from a; update t set x = now()::date; end $$; update t set y = now()::date",
            "create function f() returns int language sql as 'insert into t values (1) returning 1'; update t set a = random()",
            "create table p (at date) partition by range (at); create table q partition of p default; alter table p add b uuid default gen_random_uuid()",
            "do $$ begin create table if not exists t (at timestamptz default clock_timestamp()); exception when others then null; end $$",
            "create table a (); create view v as select * from a; insert into t select random() from v",
            "create table t (); select 1 / (case when exists (select 1 from t where at > now()) then 0 else 1 end)",
            "do $$ begin insert into t values (1); raise notice 'done now'; end $$",
            "create table a (); create table b (); insert into t select gen_random_uuid(), now() from a left join b using (id)",
            "create table a (); create table b (); with x as (select id from a) update t set at = now() from x where x.id = t.id",
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
            "insert into t select random() from a",
            "insert into t select random() from pg_class where relnamespace = 1",
            "create function f() returns int language sql as 'insert into t values (1) returning 1'; select f(); update t set a = random()",
            "create function f() returns trigger language plpgsql as $$ begin insert into t values (1); return new; end $$; \
             create trigger g after insert on u for each row execute function f(); insert into u values (1); update t set a = random()",
            "create rule r as on insert to u do also insert into t values (1); insert into u values (1); update t set a = random()",
            "create table a (); create view v as select * from a; insert into a values (1); insert into t select random() from v",
            "do $$ begin create table c as select now()::date as d; end $$",
            "create table a (); create view v as select 1; insert into t select random() from v",
            "create table a (b int); create table p partition of a default; insert into p values (1); insert into t select random() from a",
            "do $$ begin loop insert into t select random() from u; insert into u values (1); end loop; end $$",
            "create table a (); insert into t select count(*), random() from a",
            "insert into t select random() from generate_series(1, 2)",
            "insert into t select random() where not exists (select from t)",
            "do $$ begin execute 'insert into ' || 't values (random())'; end $$",
            "do $$ begin execute format('insert into %I values (1)', 't'); end $$; update t set a = now()::date",
            "create function f() returns int language sql as 'select extract(year from now())'; select f()",
            "do $$ begin if exists (select from public.plans) then perform 1; end if; end $$",
            "insert into t select id from public.plans",
            "insert into t select id from plans",
            "insert into t values ('public.plans'::regclass)",
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
