-- Lists the entries of guard.allow_writes that lie in a tenant's schema, or name no table, view or
-- sequence: one row of schema, name, and whether the schema is a tenant's. The tenant table may have a
-- row for public.
WITH entries AS (
    SELECT e.schema, e.name, e.schema <> 'public' AND e.schema IN (SELECT t.schema_name FROM {tenants} t) AS is_tenant
    FROM (VALUES {entries}) AS e (schema, name)
)
SELECT e.schema, e.name, e.is_tenant FROM entries e
WHERE e.is_tenant OR NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = e.schema AND c.relname = e.name AND c.relkind IN ('r', 'p', 'S', 'f', 'v'))
ORDER BY e.schema, e.name
