use super::prelude::*;

pub(super) const RULE: Definition = Definition {
    name: "outside-schema",
    severity: Severity::Error,
    grows_with_fleet: false,
    summary: "change outside of the tenant's schema, or a table that hides a shared one",
    why: "A file of the tenant set runs once for every tenant, so it must not change what all tenants share. The run rolls it back.",
    server: "All versions: a bare name that the tenant's schema lacks resolves to `public`.",
    found: &[
        "UPDATE plans SET id = 1",
        "ALTER TABLE plans ADD COLUMN b int DEFAULT 1",
        "INSERT INTO auth_user VALUES (1)",
        "DELETE FROM ONLY plans",
        "DROP TABLE plans",
        "CREATE INDEX i ON plans (id)",
        "TRUNCATE plans",
    ],
    accepted: &[
        "INSERT INTO orders SELECT id, 1 FROM plans",
        "CREATE VIEW v AS SELECT * FROM public.plans",
    ],
    check,
};

fn check(now: &TransactionState<'_>, effect: &Effect) -> Option<Violation> {
    if now.scope == Scope::Shared {
        return None;
    }
    let (tables, command): (Vec<&RelationName>, _) = match effect {
        Effect::CreateTable { table, .. } if now.is_shared_name(table) => {
            let violation = Violation::new(
                format!("the shared set also has a table '{table}', which this one hides"),
                "the name resolves to this table in one tenant and to public's in a tenant that lacks it",
                "choose a name that public does not have",
            );
            return Some(violation.with_severity(Severity::Warning));
        }
        Effect::Write { table, command, .. } => (vec![table], *command),
        Effect::Truncate { tables, .. } => (tables.iter().collect(), "TRUNCATE"),
        Effect::Lock { tables } => (tables.iter().collect(), "LOCK TABLE"),
        Effect::CreateIndex { table, .. } => (vec![table], "CREATE INDEX"),
        Effect::Remove { table, .. } => (vec![table], "DROP"),
        Effect::Validate { table, .. } => (vec![table], "this statement"),
        _ => (vec![effect.altered()?], "this statement"),
    };
    let outside: Vec<&RelationName> = (tables.into_iter())
        .filter(|table| now.is_outside(table))
        .collect();
    let first = outside.first()?;
    let reason = match first.schema {
        Some(_) => "",
        None => ", because no file of the tenant set creates a table of that name",
    };
    Some(Violation::new(
        format!("{command} changes {}{reason}", listed(outside.iter().map(|it| in_public(it)))),
        "it would run once for every tenant, on data that all of them share; the run rolls it back",
        "move it to the shared set",
    ))
}
