use super::*;

const SHARED: &str = "create table plans (id int primary key); create table auth_user (id int);";

fn sets(tenant: &[(&str, &str)]) -> (MigrationSet, MigrationSet) {
    (
        MigrationSet::embedded(Scope::Shared, &[("V1__s.sql", SHARED)]).unwrap(),
        MigrationSet::embedded(Scope::Tenant, tenant).unwrap(),
    )
}

fn shown(findings: &[Finding]) -> Vec<String> {
    let show = |finding: &Finding| {
        let place = &finding.place;
        format!("{}:{} {}", place.line, place.column.unwrap(), finding.rule)
    };
    findings.iter().map(show).collect()
}

/// Judges one file of the tenant set, behind one that made the tables `t` and `u`.
fn in_file(text: &str) -> Vec<String> {
    let (shared, tenant) = sets(&[
        (
            "V1__t.sql",
            "create table t (id int primary key, a int); create table u (id int primary key);",
        ),
        ("V2__x.sql", text),
    ]);
    shown(&Linter::new(&shared, &tenant).unwrap().every_file())
}

#[track_caller]
fn finds(text: &str, rules: &[&str]) {
    let found = in_file(text);
    let names: Vec<&str> = found
        .iter()
        .map(|found| found.split_once(' ').unwrap().1)
        .collect();
    assert_eq!(names, rules, "{text}");
}

#[test]
fn a_key_to_a_shared_table_belongs_at_the_end() {
    for text in [
        "create table o (id int, plan int references public.plans (id)); create index i on o (plan);",
        "create table o (id int, plan int references plans); select 1",
        "create table o (id int, foreign key (id) references \"public\".plans); create table p ()",
        "create table o (id int); alter table o add foreign key (id) references public.plans not valid; create table p ()",
    ] {
        finds(text, &["fk-to-shared"]);
    }
    for text in [
        "create table o (id int references t); create index i on o (id)",
        "create table o (id int, plan int references public.plans (id));",
        "create table o (id int); alter table o add foreign key (id) references public.plans",
        "create table o (id int, b int); alter table o add foreign key (id) references plans; alter table o add foreign key (b) references plans",
    ] {
        finds(text, &[]);
    }
    assert_eq!(
        in_file("create table o (\n  plan int\n    references public.plans\n);\nselect 1"),
        ["3:5 fk-to-shared"]
    );
}

#[test]
fn a_file_that_follows_in_the_transaction_is_work_too() {
    let (shared, tenant) = sets(&[
        (
            "V1__a.sql",
            "create table o (plan int references public.plans)",
        ),
        ("V2__b.sql", "create table p (id int)"),
        ("V3__c.sql", "-- pricesync: no-transaction\nvacuum t"),
        (
            "V4__d.sql",
            "create table q (plan int references public.plans)",
        ),
    ]);
    let linter = Linter::new(&shared, &tenant).unwrap();
    assert_eq!(shown(&linter.every_file()), Vec::<String>::new());
    let found = linter.pending(Scope::Tenant, &[0, 1, 2, 3], true);
    assert_eq!(shown(&found), ["1:26 fk-to-shared"]);
    assert!(
        found[0]
            .message
            .contains("1 statement follows, another file among them")
    );
    assert!(linter.pending(Scope::Tenant, &[0, 1], false).is_empty());
    assert!(linter.pending(Scope::Tenant, &[0, 2, 3], true).is_empty());
}

#[test]
fn a_default_that_comes_with_its_column_costs_in_every_schema() {
    for text in [
        "alter table t add column b int default 1",
        "alter table t add b text not null default lower('A')",
        "alter table t add b timestamptz default now()",
        "alter table t add b date default current_date",
        "create table n (id int); alter table n add column b int default 1",
    ] {
        finds(text, &["add-column-default"]);
    }
    for text in [
        "alter table t add column b int",
        "alter table t add column b int default null",
        "alter table t add column b int default NULL::int",
        "alter table t add column b int; alter table t alter column b set default 1",
        "create table n (id int default 1)",
    ] {
        finds(text, &[]);
    }
}

#[test]
fn a_column_that_changes_its_type_is_found_in_both_sets() {
    finds(
        "alter table t alter column a type bigint",
        &["alter-column-type"],
    );
    finds(
        "alter table t alter a set data type text using a::text",
        &["alter-column-type"],
    );
    finds("alter table t alter column a set default 1", &[]);
    let shared = MigrationSet::embedded(
        Scope::Shared,
        &[
            (
                "V1__s.sql",
                "create table plans (id int); alter table plans alter id type bigint",
            ),
            (
                "V2__s.sql",
                "alter table plans alter id type int; alter table plans add b int default 1",
            ),
        ],
    )
    .unwrap();
    let tenant = MigrationSet::embedded(Scope::Tenant, &[]).unwrap();
    let found = Linter::new(&shared, &tenant).unwrap().every_file();
    assert_eq!(shown(&found), ["1:19 alter-column-type"]);
}

#[test]
fn what_writes_every_row_is_found() {
    for text in [
        "alter table t add column b uuid default gen_random_uuid()",
        "alter table t add column b text default ('x' || md5(random()::text))",
        "alter table t add column b int default my_function()",
        "alter table t add column b serial",
        "alter table t add column b int generated always as identity",
        "alter table t add column b int generated always as (a + 1) stored",
        "alter table t set unlogged",
        "alter table t set tablespace x",
    ] {
        finds(text, &["rewrites-table"]);
    }
    finds(
        "create table n (id int); alter table n add column b serial",
        &[],
    );
    finds("create table n (id int default random())", &[]);
    for text in [
        "update t set a = 1",
        "delete from t",
        "with w as (select 1) update only t set a = 2",
        "refresh materialized view v",
    ] {
        finds(text, &["rewrites-table"]);
    }
    for text in [
        "update t set a = 1 where a is null",
        "delete from t using u where t.id = u.id",
        "update t set a = u.id from u where t.id = u.id",
        "create table n (id int); update n set id = 1",
        "refresh materialized view concurrently v",
        "create materialized view v as select 1; refresh materialized view v",
    ] {
        finds(text, &[]);
    }
}

#[test]
fn a_column_that_existing_rows_cannot_have_is_an_error() {
    finds(
        "alter table t add column b int not null",
        &["not-null-column"],
    );
    finds(
        "create table n (id int); alter table n add column b int not null",
        &[],
    );
    finds("alter table t add column b int", &[]);
}

#[test]
fn an_index_on_a_table_in_use_is_built_concurrently() {
    finds("create index i on t (a)", &["index-without-concurrently"]);
    finds(
        "create unique index i on only t (a)",
        &["index-without-concurrently"],
    );
    finds("create table n (id int); create index i on n (id)", &[]);
    finds(
        "-- pricesync: no-transaction\ncreate index concurrently i on t (a)",
        &[],
    );
    for text in [
        "drop index i",
        "drop index if exists i, j",
        "reindex table t",
        "reindex index i",
    ] {
        finds(text, &["index-without-concurrently"]);
    }
    for text in ["drop index concurrently i", "reindex table concurrently t"] {
        finds(&format!("-- pricesync: no-transaction\n{text}"), &[]);
    }
    finds(
        "-- pricesync: no-transaction\ncreate index concurrently if not exists i on t (a)",
        &["if-not-exists"],
    );
}

#[test]
fn a_constraint_is_checked_apart_from_being_added() {
    for text in [
        "alter table t add constraint c check (a > 0)",
        "alter table t add constraint c foreign key (a) references u",
        "alter table t add constraint c unique (a)",
        "alter table t add primary key (a)",
        "alter table t add exclude using gist (a with =)",
        "alter table t add column b int check (b > 0)",
        "alter table t add column b int unique",
        "alter table t add constraint c check (a > 0) not valid; alter table t validate constraint c",
    ] {
        let found = in_file(text);
        assert!(
            found.iter().any(|found| found.ends_with("constraint-scan")),
            "{text}: {found:?}"
        );
    }
    for text in [
        "alter table t add constraint c check (a > 0) not valid",
        "alter table t add constraint c unique using index i",
        "alter table t validate constraint from_before",
        "create table n (id int); alter table n add constraint c check (id > 0)",
        "create table n (id int check (id > 0), unique (id))",
    ] {
        finds(text, &[]);
    }
}

#[test]
fn set_not_null_is_cheap_once_a_check_has_proven_it() {
    finds(
        "alter table t alter column a set not null",
        &["set-not-null"],
    );
    let (shared, tenant) = sets(&[
        (
            "V1__a.sql",
            "alter table t add constraint c check (a is not null) not valid",
        ),
        (
            "V2__b.sql",
            "-- pricesync: no-transaction\nalter table t validate constraint c",
        ),
        ("V3__c.sql", "alter table t alter column a set not null"),
        ("V4__d.sql", "alter table t alter column b set not null"),
    ]);
    let found = Linter::new(&shared, &tenant).unwrap().every_file();
    assert_eq!(shown(&found), ["1:15 set-not-null"]);
    assert_eq!(found[0].path.to_str(), Some("V4__d.sql"));
}

#[test]
fn what_running_programs_use_is_not_taken_away_or_renamed_in_passing() {
    for text in [
        "drop table t",
        "alter table t drop column a",
        "alter table t rename column a to b",
        "alter table t rename to tt",
        "alter view v rename to w",
        "alter type mood rename to feeling",
        "drop view v cascade",
        "drop materialized view if exists v cascade",
        "drop function f(int) cascade",
        "drop sequence s cascade",
        "drop type mood cascade",
    ] {
        finds(text, &["breaks-running-code"]);
    }
    finds(
        "create table n (id int, b int); alter table n drop column b; drop table n",
        &[],
    );
    finds("drop view v; drop type mood; drop function f(int)", &[]);
}

#[test]
fn the_blunt_commands_are_named() {
    finds("lock table t in exclusive mode", &["lock-table"]);
    finds("truncate t, u cascade", &["truncate"]);
    finds(
        "-- pricesync: no-transaction\nvacuum full t; vacuum (full) t; vacuum (full off) t; vacuum t; cluster t using i",
        &["vacuum-full", "vacuum-full", "vacuum-full"],
    );
    finds("create table n (id int); lock table n; truncate n", &[]);
}

#[test]
fn if_not_exists_hides_that_schemas_differ() {
    finds("create table if not exists n (id int)", &["if-not-exists"]);
    finds(
        "alter table t add column if not exists b int",
        &["if-not-exists"],
    );
}

#[test]
fn several_tables_in_use_are_a_hint_where_the_second_is_locked() {
    assert_eq!(
        in_file(
            "alter table t add column b int;\nalter table t add column c int;\nalter table u add column b int"
        ),
        ["3:15 several-locks"]
    );
    finds(
        "alter table t add column b int; create table n (id int); create index i on n (id)",
        &[],
    );
}

#[test]
fn what_changes_public_is_an_error_and_reading_it_is_not() {
    for text in [
        "alter table plans add column b int default 1",
        "insert into auth_user values (1)",
        "update plans set id = 1",
        "delete from only plans",
        "drop table plans",
        "create index i on plans (id)",
        "truncate plans",
    ] {
        finds(text, &["outside-schema"]);
    }
    finds("insert into t select id, 1 from plans", &[]);
    finds("create view v as select * from public.plans", &[]);
    let (shared, tenant) = sets(&[(
        "V1__x.sql",
        "create table plans (id int); insert into plans values (1)",
    )]);
    let found = Linter::new(&shared, &tenant).unwrap().every_file();
    assert_eq!(shown(&found), ["1:1 outside-schema"]);
    assert_eq!(found[0].severity, Severity::Warning);
}

#[test]
fn what_the_server_keeps_may_not_depend_on_the_search_path() {
    let function = "create function f(int) returns int language sql immutable as 'select count(*)::int from u where id = $1';";
    finds(
        &format!("{function} create table n (id int); create index i on n (f(id))"),
        &["search-path-17"],
    );
    finds(
        &format!("{function} create materialized view v as select f(id) from t"),
        &["search-path-17"],
    );
    for text in [
        "create function f(int) returns int language sql immutable begin atomic select count(*)::int from u; end; create table n (id int); create index i on n (f(id))",
        "create function f(int) returns int language sql immutable as 'select $1 + 1'; create table n (id int); create index i on n (f(id))",
        "create function f(int) returns int language sql set search_path from current as 'select count(*)::int from u'; create materialized view v as select f(id) from t",
        "create table n (a text); create index i on n (lower(a))",
    ] {
        finds(text, &[]);
    }
}

#[test]
fn a_statement_that_is_not_known_is_said_so_once() {
    finds(
        "create flux capacitor c; create flux capacitor d; drop table t",
        &["not-read", "breaks-running-code"],
    );
}

#[test]
fn a_comment_above_a_statement_allows_a_rule_there() {
    for text in [
        "-- pricesync: allow breaks-running-code\ndrop table t;\nalter table u add b int not null",
        "-- a\n-- pricesync: allow truncate, breaks-running-code\n-- b\n  drop table t;\nalter table u add b int not null",
    ] {
        finds(text, &["not-null-column", "several-locks"]);
    }
    finds(
        "-- pricesync: allow truncate\n\ntruncate t;\nselect 1;\ntruncate t",
        &[],
    );
    finds(
        "-- pricesync: allow truncate\ntruncate t;\nselect 1;\ntruncate t",
        &["truncate"],
    );
    finds(
        "-- pricesync: no-transaction\n-- pricesync: allow truncate\n\nselect 1; truncate t",
        &[],
    );
    finds(
        "select 1;\n-- pricesync: allow truncate\n\ntruncate t",
        &["truncate"],
    );
}

#[test]
fn a_rule_that_is_allowed_and_does_not_exist_is_an_error() {
    let (shared, tenant) = sets(&[(
        "V1__x.sql",
        "select 1;\n  -- pricesync: allow truncat\nselect 2",
    )]);
    let LoadErrors(errors) = Linter::new(&shared, &tenant).unwrap_err();
    assert_eq!(
        errors[0].to_string(),
        "V1__x.sql:2:3: unknown lint rule 'truncat'"
    );
    assert_eq!(errors[0].hint(), Some("did you mean truncate?".into()));
}
