//! Checks the text of a file: cuts it into statements and rejects what is forbidden.

use std::ops::Range;

use super::forbidden::classify;
use super::refusal::Refusal;
use super::timeouts::{SwitchedOff, switched_off};
use crate::domain::script::Scope;
use crate::migrations::sql::directives::{Transaction, directive, starts_down_section};
use crate::migrations::sql::lexer::{Lexer, TokenKind};
use crate::migrations::sql::parser::{self, Limits};
use crate::migrations::sql::split::{Splitter, Statement};

/// Further refusals of one file are dropped.
const MAX_REFUSALS: usize = 25;

/// The result of checking a text.
#[derive(Debug)]
pub(crate) struct CheckedSql {
    pub(crate) statements: Vec<Statement>,
    /// Byte offset and reason, in the order of the text.
    pub(crate) refusals: Vec<(usize, Refusal)>,
    /// The byte ranges of the line comments that begin with `-- pricesync:`.
    pub(crate) directives: Vec<Range<usize>>,
    /// The values that switch timeouts off.
    pub(crate) switched_off: Vec<SwitchedOff>,
    /// Whether the parser confirms each statement that the lexer found. Where it does not, because
    /// it lacks the grammar or the text is too long for it, a transaction command may have gone
    /// unnoticed: run the text through [`wrap_in_do`](super::wrap_in_do::wrap_in_do), so that the
    /// server rejects it.
    pub(crate) is_parsed: bool,
}

/// Cuts a text into statements, and collects its directives and everything that is rejected.
pub(crate) fn check(text: &str, scope: Scope, transaction: Transaction) -> CheckedSql {
    let mut checked = CheckedSql {
        statements: Vec::new(),
        refusals: Vec::new(),
        directives: Vec::new(),
        switched_off: Vec::new(),
        is_parsed: false,
    };
    let mut parsable = Limits::allow_file(text);
    let mut splitter = Splitter::default();
    let mut lexer = Lexer::new(text);
    let mut down = None;
    loop {
        let next = lexer.next();
        if let Some(token) = next {
            if token.kind == TokenKind::LineComment {
                let comment = &text[token.start..token.end];
                if directive(comment).is_some() {
                    checked.directives.push(token.start..token.end);
                } else if starts_down_section(comment) {
                    down.get_or_insert((token.start, comment.trim()));
                }
                continue;
            }
            if token.kind == TokenKind::Backslash {
                lexer.skip_line();
                checked.reject(token.start, meta_command(&text[token.start..]));
                continue;
            }
            if !splitter.push(token, text) {
                continue;
            }
        } else if splitter.is_empty() {
            break;
        }
        let keywords = splitter.keywords(text);
        if let Some(refusal) = classify(keywords, scope, transaction) {
            if matches!(&refusal, Refusal::CopyThroughClient(copy) if copy.ends_with("STDIN")) {
                lexer.skip_copy_data();
            }
            checked.reject(keywords.offset(0).unwrap_or_default(), refusal);
        }
        checked.switched_off.extend(switched_off(keywords));
        parsable &= Limits::allow_statement(splitter.count(), splitter.max_depth());
        if let Some((offset, comment)) = down.take() {
            // What follows must go, so it is not checked.
            checked.reject(offset, Refusal::DownSection(comment.to_owned()));
            break;
        }
        checked.statements.push(splitter.finish(text));
    }
    if let Some(offset) = lexer.unclosed {
        checked.reject(offset, Refusal::Unclosed(unclosed(&text[offset..])));
    }
    checked.refusals.sort_by_key(|(offset, _)| *offset);
    checked.is_parsed =
        parsable && checked.refusals.is_empty() && parser::confirms(text, &checked.statements);
    checked
}

/// Returns the kind of the unclosed token with which a text starts.
fn unclosed(text: &str) -> &'static str {
    match text.as_bytes() {
        [b'/', ..] => "comment",
        [b'$', ..] => "dollar-quoted string",
        [b'"', ..] | [_, b'&', b'"', ..] => "quoted identifier",
        _ => "string",
    }
}

impl CheckedSql {
    fn reject(&mut self, offset: usize, refusal: Refusal) {
        if self.refusals.len() < MAX_REFUSALS {
            self.refusals.push((offset, refusal));
        }
    }
}

fn meta_command(rest: &str) -> Refusal {
    let line = rest.lines().next().unwrap_or_default();
    let command = line.split_whitespace().next().unwrap_or_default();
    Refusal::MetaCommand(command.to_owned())
}

#[cfg(test)]
mod tests {
    use super::Transaction::{Inside, Outside};
    use super::*;
    use crate::migrations::sql::position::location_of_byte;

    fn refused(text: &str, scope: Scope, transaction: Transaction) -> Vec<String> {
        let refusals = check(text, scope, transaction).refusals;
        let show = |(offset, refusal): (usize, Refusal)| {
            let location = location_of_byte(text, offset);
            let message = refusal.to_string();
            let sql = message.split(" is not ").next().unwrap_or_default();
            let sql = sql.split(" cannot run ").next().unwrap_or_default();
            format!("{}:{} {sql}", location.line, location.column.unwrap())
        };
        refusals.into_iter().map(show).collect()
    }

    #[test]
    fn what_the_file_does_not_close_is_rejected() {
        for (text, expected) in [
            ("create table a ();\n /* oops", "2:2 the comment that starts here"),
            ("/* /* */ select 1", "1:1 the comment that starts here"),
            ("select 'a''", "1:8 the string that starts here"),
            ("select e'\\'", "1:8 the string that starts here"),
            ("do $x$ begin $$ end", "1:4 the dollar-quoted string that starts here"),
            ("drop table \"a", "1:12 the quoted identifier that starts here"),
            ("select U&\"a", "1:8 the quoted identifier that starts here"),
            ("select 'a', \"b\", $$c$$, e'd', /* /* */ */ 1 -- '", ""),
        ] {
            let found = refused(text, Scope::Tenant, Inside).join("|");
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn the_statements_that_undo_a_file_are_rejected() {
        for mark in [
            "-- +goose Down",
            "--+goose down",
            "-- +migrate Down notransaction",
            "-- +micrate Down",
            "-- migrate:down transaction:false",
            "-- rambler down",
            "---- create above / drop below ----",
            "--//@UNDO",
            "-- --- !Downs",
        ] {
            let text = format!("create table t ();\n  {mark}\n-- more\ndrop table t; commit");
            let found = check(&text, Scope::Tenant, Inside);
            assert_eq!(found.refusals, [(21, Refusal::DownSection(mark.to_owned()))], "{mark}");
            let nothing = format!("-- +goose Up\ncreate table t ();\n{mark}\n\n-- none\n");
            assert!(check(&nothing, Scope::Tenant, Inside).refusals.is_empty(), "{mark}");
        }
        for text in
            ["-- migrate:up\nselect 1", "-- the way down\nselect 1", "select '\n-- +goose Down\n'"]
        {
            assert!(check(text, Scope::Tenant, Inside).refusals.is_empty(), "{text}");
        }
    }

    #[test]
    fn forbidden_statements_are_rejected_with_their_location() {
        for (text, expected) in [
            ("create table a ();\ncommit;\ncreate table b ()", "2:1 COMMIT"),
            ("create table a (); ROLLBACK", "1:20 ROLLBACK"),
            ("begin;", "1:1 BEGIN"),
            ("BEGIN TRANSACTION", "1:1 BEGIN"),
            ("begin work; select 1; end", "1:1 BEGIN|1:23 END"),
            ("START TRANSACTION READ ONLY", "1:1 START TRANSACTION"),
            ("select 1; Abort", "1:11 ABORT"),
            ("savepoint s; release s;", "1:1 SAVEPOINT|1:14 RELEASE"),
            ("rollback to savepoint s", "1:1 ROLLBACK"),
            ("PREPARE TRANSACTION 'x'", "1:1 PREPARE TRANSACTION"),
            (
                "commit prepared 'x'; rollback prepared 'y'",
                "1:1 COMMIT PREPARED|1:22 ROLLBACK PREPARED",
            ),
            ("/* a /* b */ ; */ commit", "1:19 COMMIT"),
            ("-- x\rcommit", "1:6 COMMIT"),
            ("select '\\'; commit; --'", "1:13 COMMIT"),
            ("select 'ế'; commit", "1:13 COMMIT"),
            ("select $a$ ; $$ ; $a$; commit", "1:24 COMMIT"),
            ("create function f() returns int begin atomic select 1; end; commit", "1:61 COMMIT"),
            ("set search_path = public", "1:1 SET search_path"),
            ("SET LOCAL Search_Path TO public", "1:1 SET LOCAL Search_Path"),
            ("set session \"search_path\" to x", "1:1 SET SESSION \"search_path\""),
            ("set U&\"search\\005fpath\" to x", "1:1 SET U&\"search\\005fpath\""),
            ("set schema 'public'", "1:1 SET SCHEMA"),
            (
                "select pg_catalog.set_config('search_path', '', false);",
                "1:1 set_config('search_path', ...)",
            ),
            ("set role postgres", "1:1 SET ROLE"),
            ("set local role to postgres", "1:1 SET LOCAL ROLE"),
            ("set session authorization default", "1:1 SET SESSION AUTHORIZATION"),
            ("set local session authorization x", "1:1 SET SESSION AUTHORIZATION"),
            ("reset all", "1:1 RESET ALL"),
            ("reset role", "1:1 RESET ROLE"),
            ("discard temp", "1:1 DISCARD TEMP"),
            ("set standard_conforming_strings = off", "1:1 SET standard_conforming_strings = off"),
            ("\\restrict abc\nselect 1;", "1:1 psql meta-command \\restrict"),
            ("select 1;\n  \\i it's.sql\ncommit", "2:3 psql meta-command \\i|3:1 COMMIT"),
            ("select 1 \\gset", "1:10 psql meta-command \\gset"),
            ("copy t (a, b) from stdin;\n1\tit's\n\\.\ncommit", "1:1 COPY FROM STDIN|4:1 COMMIT"),
            ("COPY t FROM stdin WITH (FORMAT csv)", "1:1 COPY FROM STDIN"),
            ("copy (select 1) to stdout", "1:1 COPY TO STDOUT"),
            ("create database x; drop tablespace y", "1:1 CREATE DATABASE|1:20 DROP TABLESPACE"),
            ("alter system set work_mem = '1GB'", "1:1 ALTER SYSTEM"),
        ] {
            for transaction in [Inside, Outside] {
                for scope in [Scope::Shared, Scope::Tenant] {
                    assert_eq!(refused(text, scope, transaction).join("|"), expected, "{text}");
                }
            }
        }
    }

    #[test]
    fn similar_statements_are_allowed() {
        for text in [
            "-- commit;\nselect 1",
            "/* commit; /* rollback; */ commit; */ select 1",
            "select 'commit; rollback'",
            "select E'it\\'s; commit; '",
            "insert into t values ('a;\n\\i x\n;commit;')",
            "select $$ ; commit; $$, $x$ $$; commit; $x$",
            "do $$ begin commit; end $$",
            "create table \"commit\" (\"begin\" int); select 1 as \"end\"",
            "create function f() returns int language sql begin atomic select case when true then 1 else 2 end; select 2; end",
            "create function f() returns int language plpgsql set search_path = x as $$ begin return 1; end $$",
            "alter function f() set search_path = x",
            "create procedure p() language plpgsql as $body$ begin commit; rollback; end $body$",
            "prepare q as select 1; execute q; deallocate q",
            "set local lock_timeout = '1s'; set constraints all immediate; set time zone 'UTC'",
            "set app.search_path = 'x'",
            "set standard_conforming_strings = on; set client_encoding = 'UTF8'",
            "select set_config('app.tenant', 'x', true)",
            "alter type mood add value 'meh'",
            "refresh materialized view concurrently v",
            "cluster t using i; reindex table t; analyze t",
            "alter table t detach partition p",
            "copy t from '/tmp/x.csv'; copy stdin to '/tmp/y'",
            "select set_config, 'search_path' from t",
            "create type commit as (a int); comment on type commit is 'rollback'",
            "create sequence concurrently",
        ] {
            assert_eq!(refused(text, Scope::Tenant, Inside), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn statements_that_need_no_transaction_are_rejected() {
        for (text, expected) in [
            ("create index concurrently i on t (a)", "CREATE INDEX CONCURRENTLY"),
            ("create unique index concurrently on t (a)", "CREATE INDEX CONCURRENTLY"),
            ("drop index concurrently if exists i", "DROP INDEX CONCURRENTLY"),
            ("reindex index concurrently i", "REINDEX CONCURRENTLY"),
            ("reindex (concurrently, verbose) table t", "REINDEX CONCURRENTLY"),
            ("reindex (verbose) schema s", "REINDEX SCHEMA"),
            ("reindex system", "REINDEX SYSTEM"),
            ("vacuum (analyze) t", "VACUUM"),
            ("cluster", "CLUSTER without a table"),
            ("cluster verbose", "CLUSTER without a table"),
            (
                "alter table t detach partition p concurrently",
                "ALTER TABLE DETACH PARTITION CONCURRENTLY",
            ),
            ("create subscription s connection 'x' publication p", "CREATE SUBSCRIPTION"),
        ] {
            assert_eq!(refused(text, Scope::Tenant, Inside), [format!("1:1 {expected}")], "{text}");
            assert_eq!(refused(text, Scope::Tenant, Outside), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn what_a_tenant_file_must_not_change_is_rejected() {
        let named = "the tenant set must not change objects of a named schema, here";
        for (text, what) in [
            ("create function public.f() returns int language sql as 'select 1'", "'public'"),
            ("create table if not exists Public.t (id int)", "'public'"),
            ("drop table \"Tenant_x\".t", "'Tenant_x'"),
            ("alter domain public.d drop not null", "'public'"),
            ("create unique index concurrently public.i on t (a)", "'public'"),
            ("create index on public.t (a)", "'public'"),
            ("create unique index if not exists i on only public.t (a)", "'public'"),
            ("create trigger r after insert on public.t execute function f()", "'public'"),
            ("create policy p on \"Tenant_x\".t using (true)", "'Tenant_x'"),
            ("drop policy p on public.t", "'public'"),
            ("create rule r as on insert to public.t do nothing", "'public'"),
            ("drop rule if exists r on public.t", "'public'"),
            ("create statistics s on a, b from public.t", "'public'"),
            ("alter table t attach partition public.p default", "'public'"),
            ("drop table a, public.b", "'public'"),
            ("comment on table public.t is 'x'", "'public'"),
            ("comment on column public.t.a is 'x'", "'public'"),
            ("comment on function public.f(int) is 'x'", "'public'"),
            ("comment on constraint c on public.t is 'x'", "'public'"),
            ("refresh materialized view concurrently public.v", "'public'"),
            ("select 1 as a into public.n", "'public'"),
            ("select 1 as a into unlogged table public.n from t", "'public'"),
            ("with x as (insert into public.t values (1) returning a) select * from x", "'public'"),
            ("with x as (delete from only public.t returning a) select * from x", "'public'"),
            ("with x as (select 1) update public.t set a = 1", "'public'"),
            ("explain analyze update public.t set a = 1", "'public'"),
            ("merge into public.t using u on true when matched then delete", "'public'"),
            ("truncate a, public.b", "'public'"),
            ("lock table only public.t", "'public'"),
            ("copy public.t from '/tmp/x'", "'public'"),
            ("create extension if not exists citext", "CREATE EXTENSION"),
            ("drop extension citext", "DROP EXTENSION"),
            ("alter extension citext update", "ALTER EXTENSION"),
            ("create schema x", "CREATE SCHEMA"),
            ("drop schema public cascade", "DROP SCHEMA"),
            ("alter schema a rename to b", "ALTER SCHEMA"),
        ] {
            let found = refused(text, Scope::Tenant, Outside);
            let expected = if what.starts_with('\'') {
                format!("1:1 {named} {what}")
            } else {
                format!("1:1 {what}")
            };
            assert_eq!(found, [expected], "{text}");
            assert!(check(text, Scope::Shared, Outside).refusals.is_empty());
        }
        for text in [
            "create table a (b int references public.c (id))",
            "create sequence s owned by a.b",
            "create temporary table pg_temp.t (id int)",
            "create view v as select * from public.c",
            "alter table t add foreign key (a) references public.c",
            "comment on column t.a is 'public.t'",
            "insert into t select * from public.c on conflict (a) do update set a = 1",
            "select * from public.c for update of t",
            "update t set a = c.a from public.c",
            "select 1 as a into temp n from public.c",
            "copy public.c to '/tmp/x'; merge into t using public.c on true when matched then update set a = 1",
            "create index i on t (public.f(a)); create trigger r before insert on t execute function public.f()",
        ] {
            assert!(check(text, Scope::Tenant, Transaction::Inside).refusals.is_empty(), "{text}");
        }
    }

    #[test]
    fn unknown_grammar_is_left_to_the_server() {
        for text in ["create flux capacitor c; select 1", "select (1; select 2"] {
            let found = check(text, Scope::Tenant, Inside);
            assert_eq!((found.refusals.len(), found.is_parsed), (0, false), "{text}");
        }
        assert_eq!(
            refused("create flux capacitor c; commit", Scope::Tenant, Inside),
            ["1:26 COMMIT"]
        );
        let plain = check("create table a (); insert into a default values", Scope::Tenant, Inside);
        assert_eq!((plain.statements.len(), plain.is_parsed), (2, true));
    }

    #[test]
    fn checking_takes_linear_time() {
        let time = |megabytes: usize| {
            let text = "insert into t (a, b) values (1, 'it''s');\n".repeat(megabytes * 25_000);
            let start = on_cpu();
            let found = check(&text, Scope::Tenant, Inside);
            assert_eq!(found.statements.len(), megabytes * 25_000);
            on_cpu() - start
        };
        // Both go unparsed. The factor is 2; a quadratic part would show as more than 4.
        let (five, ten) = (time(5), time(10));
        assert!(ten < five * 5, "{five} ns for 5 MB, {ten} ns for 10 MB");
    }

    /// Returns the time that this thread has had a processor for, in nanoseconds.
    fn on_cpu() -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    }
}
