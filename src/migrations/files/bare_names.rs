//! Rejects bare names in the tenant set that only the shared set creates: the server would resolve
//! them to `public`.

use super::find_definition::{
    created_by_tenants, created_in_public, each_statement, may_create_tables,
};
use super::load_error::{LoadError, LoadErrors, Problem};
use super::set::MigrationSet;
use crate::migrations::policy::refusal::Refusal;
use crate::migrations::sql::relations::changed;

/// Rejects every statement of the tenant set that changes, under a bare name, a relation which the
/// shared set creates in `public` and no file of the tenant set creates.
///
/// Allows all names where code in a file may create relations; the escape guard then checks what was
/// done.
///
/// # Errors
///
/// Every such statement, in the order of versions.
pub fn check_bare_names(shared: &MigrationSet, tenant: &MigrationSet) -> Result<(), LoadErrors> {
    let public = created_in_public(shared);
    if public.is_empty() {
        return Ok(());
    }
    let mut changes = Vec::new();
    for script in tenant.scripts() {
        each_statement(script, |start, keywords| {
            let names = changed(keywords).into_iter();
            let bare = names.filter(|(_, name)| name.schema.is_none());
            let found = bare.filter(|(_, name)| public.contains_key(&name.relation));
            changes.extend(found.map(|(offset, name)| (script, start + offset, name.relation)));
        });
    }
    if changes.is_empty() || may_create_tables(shared) || may_create_tables(tenant) {
        return Ok(());
    }
    let own = created_by_tenants(tenant);
    let errors: Vec<LoadError> = changes
        .into_iter()
        .filter(|(_, _, table)| !own.contains(table))
        .map(|(script, offset, table)| {
            let created_by = public[&table].clone();
            let refusal = Refusal::SharedByBareName { table, created_by };
            LoadError::at(&script.path, &script.text, offset, Problem::Refused(refusal))
        })
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(LoadErrors(errors)) }
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
        let names: Vec<String> =
            (1..=tenant.len()).map(|number| format!("V{number}__t.sql")).collect();
        let files: Vec<(&str, &str)> =
            (names.iter().map(String::as_str)).zip(tenant.iter().copied()).collect();
        let tenant = MigrationSet::embedded(Scope::Tenant, &files).unwrap();
        match check_bare_names(&shared, &tenant) {
            Ok(()) => Vec::new(),
            Err(LoadErrors(errors)) => errors.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn bare_names_of_shared_tables_are_rejected() {
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
            ("create unique index if not exists i on plans (id)", vec!["1:40"]),
            (
                "create constraint trigger t after update of id on plans for each row execute function f()",
                vec!["1:51"],
            ),
            ("create rule r as on insert to plans do nothing", vec!["1:31"]),
            ("create policy p on plans using (true)", vec!["1:20"]),
        ] {
            let found = refused(SHARED, &["create table own (id int)", sql]);
            let found: Vec<String> =
                found.iter().map(|error| error.split(": ").next().unwrap().to_owned()).collect();
            let places: Vec<String> =
                places.iter().map(|place| format!("V2__t.sql:{place}")).collect();
            assert_eq!(found, places, "{sql}");
        }
    }

    #[test]
    fn names_that_a_tenant_file_may_create_are_allowed() {
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
        // The order of versions does not matter: the schema may have been adopted.
        let later = ["update plans set id = 1", "create table if not exists plans (id int)"];
        assert_eq!(refused(SHARED, &later), Vec::<String>::new());
        let by_code = "create table plans (id int); do $$ begin execute 'drop table plans'; end $$";
        assert_eq!(refused(by_code, &["update plans set id = 1"]), Vec::<String>::new());
    }

    #[test]
    fn the_error_names_the_shared_script() {
        assert_eq!(
            refused(SHARED, &["update plans set id = 1"]),
            [
                "V1__t.sql:1:8: 'plans' is created by V1__shared of the shared set and by no file of the tenant set, \
                 so this would change public"
            ]
        );
    }
}
