use std::fmt::Write as _;

use super::*;

const SHARED: &str = "CREATE TABLE plans (id int PRIMARY KEY);\nCREATE TABLE auth_user (id int);";
const TENANT: &str = "CREATE TABLE orders (id int PRIMARY KEY, total int, note text);\nCREATE TABLE items (id int PRIMARY KEY, order_id int);";

fn sets(tenant: &[(&str, &str)]) -> (MigrationSet, MigrationSet) {
    (
        MigrationSet::embedded(Scope::Shared, &[("V1__s.sql", SHARED)]).unwrap(),
        MigrationSet::embedded(Scope::Tenant, tenant).unwrap(),
    )
}

fn shown(findings: &[Finding]) -> Vec<String> {
    let show = |finding: &Finding| {
        let location = &finding.location;
        format!("{}:{} {}", location.line, location.column.unwrap(), finding.rule)
    };
    findings.iter().map(show).collect()
}

/// Lints one file of the tenant set, after one that creates the tables.
fn lint(text: &str) -> Vec<Finding> {
    let tables = format!(
        "{TENANT} create table t (id int primary key, a int); create table u (id int primary key);"
    );
    let (shared, tenant) = sets(&[("V1__t.sql", &tables), ("V2__x.sql", text)]);
    Linter::new(&shared, &tenant).unwrap().every_file()
}

fn in_file(text: &str) -> Vec<String> {
    shown(&lint(text))
}

#[track_caller]
fn finds(text: &str, rules: &[&str]) {
    let found = in_file(text);
    let names: Vec<&str> = found.iter().map(|found| found.split_once(' ').unwrap().1).collect();
    assert_eq!(names, rules, "{text}");
}

#[test]
fn examples_are_found_and_accepted() {
    for &rule in Rule::ALL {
        let definition = rule.definition();
        let reports = |text: &str| lint(text).iter().any(|finding| finding.rule == rule);
        for text in definition.found {
            assert!(reports(text), "{rule} does not report: {text}");
        }
        for text in definition.accepted {
            assert!(!reports(text), "{rule} reports: {text}");
        }
        assert_eq!(Rule::named(rule.name()), Some(rule));
    }
}

#[test]
fn the_reference_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/lint-rules.md");
    let page = snapbox::Data::read_from(std::path::Path::new(path), None);
    snapbox::assert_data_eq!(reference_page(), page.raw());
}

fn reference_page() -> String {
    let mut page = format!(
        "# Lint rules\n\n\
         Generated from `src/migrations/lint/rules/`; regenerate it with\n\
         `SNAPSHOTS=overwrite cargo test --lib reference_page`.\n\n\
         `pricesync lint` reports these, `-- pricesync: allow <rule>` above a statement switches one off.\n\
         The examples are files of the tenant set after\n\n```sql\n{TENANT}\n```\n\n\
         and with this shared set:\n\n```sql\n{SHARED}\n```\n"
    );
    for &rule in Rule::ALL {
        let definition = rule.definition();
        let found = lint(definition.found[0]);
        let finding = found.iter().find(|finding| finding.rule == rule).unwrap();
        let fleet = if definition.grows_with_fleet { ", also reported by a run" } else { "" };
        write!(
            page,
            "\n## {}\n\n{} ({}{fleet}). {}\n\nServer: {}\n\nReported:\n\n```sql\n{}\n```\n\n\
             - {}\n- cost: {}\n- safer: {}\n\nAccepted:\n\n```sql\n{}\n```\n",
            definition.name,
            definition.summary,
            definition.severity,
            definition.why,
            definition.server,
            definition.found[0],
            finding.message,
            finding.cost,
            finding.safer,
            definition.accepted[0],
        )
        .unwrap();
    }
    page
}

#[test]
fn a_shared_table_in_use_is_linted_too() {
    let shared = "alter table plans alter id type int; alter table plans add b int default 1";
    let shared = [
        ("V1__s.sql", "create table plans (id int); alter table plans alter id type bigint"),
        ("V2__s.sql", shared),
    ];
    let shared = MigrationSet::embedded(Scope::Shared, &shared).unwrap();
    let tenant = MigrationSet::embedded(Scope::Tenant, &[]).unwrap();
    let found = Linter::new(&shared, &tenant).unwrap().every_file();
    assert_eq!(shown(&found), ["1:19 alter-column-type"]);
}

#[test]
fn a_table_that_hides_a_shared_one_is_a_warning() {
    let (shared, tenant) =
        sets(&[("V1__x.sql", "create table plans (id int); insert into plans values (1)")]);
    let found = Linter::new(&shared, &tenant).unwrap().every_file();
    assert_eq!(shown(&found), ["1:1 outside-schema"]);
    assert_eq!(found[0].severity, Severity::Warning);
}

#[test]
fn a_finding_is_located_at_its_clause() {
    assert_eq!(
        in_file("create table o (\n  plan int\n    references public.plans\n);\nselect 1"),
        ["3:5 fk-to-shared"]
    );
    assert_eq!(
        in_file("select 1;\ndo $$ begin\n  perform 1 from pg_type;\nend $$"),
        ["3:18 catalog-without-schema"]
    );
}

#[test]
fn a_later_file_of_the_transaction_counts_as_work() {
    let (shared, tenant) = sets(&[
        ("V1__a.sql", "create table o (plan int references public.plans)"),
        ("V2__b.sql", "create table p (id int)"),
        ("V3__c.sql", "-- pricesync: no-transaction\nvacuum t"),
        ("V4__d.sql", "create table q (plan int references public.plans)"),
    ]);
    let linter = Linter::new(&shared, &tenant).unwrap();
    assert_eq!(shown(&linter.every_file()), Vec::<String>::new());
    let found = linter.pending(Scope::Tenant, &[0, 1, 2, 3], true);
    assert_eq!(shown(&found), ["1:26 fk-to-shared"]);
    assert!(found[0].message.contains("1 statement follows, including another file"));
    assert!(linter.pending(Scope::Tenant, &[0, 1], false).is_empty());
    assert!(linter.pending(Scope::Tenant, &[0, 2, 3], true).is_empty());
}

#[test]
fn set_not_null_after_a_valid_check_is_accepted() {
    let (shared, tenant) = sets(&[
        ("V1__a.sql", "alter table t add constraint c check (a is not null) not valid"),
        ("V2__b.sql", "-- pricesync: no-transaction\nalter table t validate constraint c"),
        ("V3__c.sql", "alter table t alter column a set not null"),
        ("V4__d.sql", "alter table t alter column b set not null"),
    ]);
    let found = Linter::new(&shared, &tenant).unwrap().every_file();
    assert_eq!(shown(&found), ["1:15 set-not-null"]);
    assert_eq!(found[0].path.to_str(), Some("V4__d.sql"));
}

#[test]
fn the_second_locked_table_is_reported() {
    assert_eq!(
        in_file(
            "alter table t add column b int;\nalter table t add column c int;\nalter table u add column b int"
        ),
        ["3:15 several-locks"]
    );
    finds("alter table t add column b int; create table n (id int); create index i on n (id)", &[]);
}

#[test]
fn an_unknown_statement_is_reported_once() {
    finds(
        "create flux capacitor c; create flux capacitor d; drop table t",
        &["not-read", "breaks-running-code"],
    );
}

#[test]
fn a_comment_above_a_statement_allows_a_rule() {
    for text in [
        "-- pricesync: allow breaks-running-code\ndrop table t;\nalter table u add b int not null",
        "-- a\n-- pricesync: allow truncate, breaks-running-code\n-- b\n  drop table t;\nalter table u add b int not null",
    ] {
        finds(text, &["not-null-column", "several-locks"]);
    }
    finds("-- pricesync: allow truncate\n\ntruncate t;\nselect 1;\ntruncate t", &[]);
    finds("-- pricesync: allow truncate\ntruncate t;\nselect 1;\ntruncate t", &["truncate"]);
    finds(
        "-- pricesync: no-transaction\n-- pricesync: allow truncate\n\nselect 1; truncate t",
        &[],
    );
    finds("select 1;\n-- pricesync: allow truncate\n\ntruncate t", &["truncate"]);
}

#[test]
fn an_unknown_rule_is_an_error() {
    let (shared, tenant) =
        sets(&[("V1__x.sql", "select 1;\n  -- pricesync: allow truncat\nselect 2")]);
    let LoadErrors(errors) = Linter::new(&shared, &tenant).unwrap_err();
    assert_eq!(errors[0].to_string(), "V1__x.sql:2:3: unknown lint rule 'truncat'");
    assert_eq!(errors[0].hint(), Some("did you mean truncate?".into()));
}
