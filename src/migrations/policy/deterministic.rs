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
                // A view, a partition and its table show rows that are not inserted by their names.
                let parents = related(keywords);
                if keywords.positions("view").next().is_some() || !parents.is_empty() {
                    self.filled.extend(name.clone().into_iter().chain(parents));
                }
                if keywords.is_any(1, &["rule"]) {
                    self.fill(sql, 0, true);
                }
                if !runs_query(keywords) {
                    return self.copied(keywords).or_else(|| time_literal(keywords));
                }
                self.filled.extend(name);
                self.executed(sql, false)
            }
            "alter" if keywords.is(1, "table") => {
                let is_empty = writes_empty_table(self);
                self.rename(keywords);
                if keywords.positions("attach").next().is_some() {
                    self.filled
                        .extend(changed(keywords).into_iter().map(|(_, name)| name.relation));
                }
                if is_empty { time_literal(keywords) } else { self.executed(sql, false) }
            }
            "alter" => keywords.is(1, "domain").then(|| time_literal(keywords))?,
            "analyze" | "cluster" | "comment" | "deallocate" | "drop" | "grant" | "listen"
            | "lock" | "refresh" | "reindex" | "reset" | "revoke" | "security" | "set" | "show"
            | "truncate" | "unlisten" => None,
            word @ ("copy" | "notify" | "import" | "load") => {
                let word = word.to_ascii_uppercase();
                Some((0, format!("{word} reads or changes something outside of the schema")))
            }
            _ if self.is_without_effect(keywords) => None,
            word => self.executed(sql, matches!(word, "do" | "call")),
        }
    }

    fn may_have_rows(&self, table: &str) -> bool {
        self.all_filled || self.filled.contains(table)
    }

    /// Returns the problem of a statement that is executed, and notes the tables that it fills.
    fn executed(&mut self, sql: &str, is_code: bool) -> Option<Problem> {
        let depth = if is_code { MAX_DEPTH } else { 0 };
        // A loop may read what a later statement of it writes.
        while self.fill(sql, depth, false) {}
        let problem = with_code(sql, 0, depth, &mut |base, level| {
            let mut pieces = pieces(level, is_code).into_iter();
            let (at, why) = pieces.find_map(|piece| {
                if self.is_without_effect(piece) { None } else { self.names.problem(piece) }
            })?;
            Some((base + at, why))
        });
        problem.or_else(|| {
            let (at, catalog) = catalogs::without_schema(sql)?;
            Some((at, format!("{catalog} is read without a condition on the schema")))
        })
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
        self.fill(sql, MAX_DEPTH, true);
        self.copied(keywords)
    }

    /// Notes the tables that SQL, and the code in it down to a depth, inserts into; returns whether they
    /// are more. `always`: also those of statements that have no effect now.
    fn fill(&mut self, sql: &str, depth: usize, always: bool) -> bool {
        let before = (self.filled.len(), self.all_filled);
        with_code::<()>(sql, 0, depth, &mut |_, level| {
            for piece in pieces(level, depth > 0) {
                if always || !self.is_without_effect(piece) {
                    self.fill_targets(piece);
                }
            }
            None
        });
        before != (self.filled.len(), self.all_filled)
    }

    fn fill_targets(&mut self, piece: Keywords<'_>) {
        for index in piece.positions("into") {
            let skipped = ["only", "temp", "temporary", "unlogged", "table"];
            let name = (index + 1..=piece.len()).find(|&at| !piece.is_any(at, &skipped));
            let name = name.map(|at| if piece.text(at + 1) == "." { at + 2 } else { at });
            match name.and_then(|at| piece.identifier(at)) {
                Some(table) => {
                    self.created.insert(table.clone());
                    self.filled.insert(table);
                }
                None => self.all_filled = true,
            }
        }
    }

    /// Returns whether a statement certainly writes no row: it changes an empty table, or reads only
    /// empty ones.
    fn is_without_effect(&self, keywords: Keywords<'_>) -> bool {
        let changed = || changed(keywords);
        keywords.is_any(0, &["update", "delete"])
            && changed().iter().all(|(_, name)| !self.may_have_rows(&name.relation))
            || self.reads_empty_tables(keywords)
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
            && (is_query || count("from") >= count("select") + other_from);
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
                let is_table = index > 0
                    && keywords.is_any(index - 1, &["from", "join"])
                    && keywords.kind(index + 1) != Some(TokenKind::Open);
                let is_with = keywords
                    .positions("as")
                    .any(|at| at > 0 && keywords.identifier(at - 1).as_ref() == Some(&name));
                !(self.filled.contains(&name)
                    || is_unknown
                    || is_table && !is_with && !self.created.contains(&name)
                    || name.starts_with("pg_")
                    || name == "information_schema"
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

/// Returns the tables of which a new one is a partition or a child.
fn related(keywords: Keywords<'_>) -> Vec<String> {
    let of = keywords.positions("partition").filter(|&at| keywords.is(at + 1, "of"));
    let inherits = keywords.positions("inherits");
    of.chain(inherits).filter_map(|at| keywords.identifier(at + 2)).collect()
}

/// Splits code into its statements; everything else is one piece.
fn pieces(level: Keywords<'_>, is_code: bool) -> Vec<Keywords<'_>> {
    let starts = [
        "alter", "create", "delete", "drop", "execute", "for", "if", "insert", "merge", "perform",
        "raise", "return", "select", "update", "with",
    ];
    let begins = |index: usize| {
        level.kind(index) == Some(TokenKind::Semicolon)
            || level.is_any(index, &["begin", "then", "else", "loop"])
                && level.is_any(index + 1, &starts)
    };
    let ends: Vec<usize> = (0..level.len()).filter(|&index| is_code && begins(index)).collect();
    let from = std::iter::once(0).chain(ends.iter().map(|end| end + 1));
    from.zip(ends.iter().copied().chain([level.len()]))
        .map(|(start, end)| level.slice(start..end))
        .collect()
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
            "insert into t values (1); do $$ begin if not exists (select from t) then insert into t values (now()); end if; end $$",
            "create table a (); do $$ begin insert into t select gen_random_uuid() from a; update t set x = now()::date; end $$; update t set y = now()::date",
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
            "create table a (); create view v as select 1; insert into t select random() from v",
            "create table a (); create table p partition of a default; insert into p values (1); insert into t select random() from a",
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
