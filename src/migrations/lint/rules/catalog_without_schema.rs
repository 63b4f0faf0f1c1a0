use super::prelude::*;

pub(super) const RULE: Definition = Definition {
    name: "catalog-without-schema",
    severity: Severity::Warning,
    grows_with_fleet: false,
    summary: "query of a catalog without a condition on the schema",
    why: "The catalog lists the objects of all tenants, so the first tenant gets another answer than the next ones.",
    server: "All versions: pg_class, pg_type, information_schema and the like contain every schema.",
    found: &[
        "DO $$ BEGIN\n  IF NOT EXISTS (SELECT FROM pg_type WHERE typname = 'mood') THEN\n    CREATE TYPE mood AS ENUM ('calm');\n  END IF;\nEND $$;",
        "INSERT INTO orders SELECT 1 FROM information_schema.tables WHERE table_name = 'items'",
        "SELECT 1 FROM pg_catalog.pg_tables WHERE tablename = 'items'",
        "DELETE FROM orders WHERE EXISTS (SELECT FROM pg_class)",
        "CREATE FUNCTION f(name text) RETURNS bool LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM pg_tables WHERE tablename = name)'",
    ],
    accepted: &[
        "DO $$ BEGIN\n  IF to_regtype('mood') IS NULL THEN\n    CREATE TYPE mood AS ENUM ('calm');\n  END IF;\nEND $$;",
        "SELECT 1 FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = 'items'",
        "SELECT 1 FROM pg_class WHERE relnamespace = current_schema()::regnamespace",
        "SELECT 1 FROM pg_constraint WHERE conrelid = 'items'::regclass",
        "SELECT pg_typeof(1)",
    ],
    check,
};

fn check(now: &TransactionState<'_>, effect: &Effect) -> Option<Violation> {
    let Effect::ReadCatalog { catalog } = effect else {
        return None;
    };
    (now.scope == Scope::Tenant).then(|| {
        Violation::new(
            format!("{catalog} is read without a condition on the schema"),
            "the first tenant is migrated as intended; in the next ones the objects of the first are found",
            "to_regclass('name') IS NULL, to_regtype('name') IS NULL, or a condition such as table_schema = current_schema()",
        )
    })
}
