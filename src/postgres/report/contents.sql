-- What a database holds that pricesync did not create: its name; the number of schemas and the names of
-- some; whether public holds tables without a history of ours; tables that may list tenants, as their names or columns suggest.
WITH foreign_schema AS (
    SELECT n.oid, n.nspname FROM pg_namespace n
    WHERE n.nspname NOT IN ('public', 'pricesync', 'information_schema') AND NOT starts_with(n.nspname::text, 'pg_')
    AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_namespace'::regclass AND e.objid = n.oid AND e.deptype = 'e')
), relation AS (
    SELECT c.oid, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND (n.nspname = 'public' OR n.oid IN (SELECT oid FROM foreign_schema))
    AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
), lister AS (
    -- A table of tenants is in one schema; those of the tenants are in many.
    SELECT min(nspname) AS schema, relname, min(oid) AS oid FROM relation GROUP BY relname HAVING count(*) = 1
), candidate AS (
    SELECT format('%s.%s', l.schema, l.relname) AS name,
        (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = l.oid AND a.attname ~* '^(schema|schema_name|subdomain|slug|db_schema|tenant_schema)$') * 2
            + (l.relname ~* 'tenant|client|account|customer|organi[sz]ation|workspace|company')::int AS points
    FROM lister l
    WHERE EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = l.oid AND a.attnum > 0 AND a.atttypid IN ('text'::regtype, 'varchar'::regtype, 'name'::regtype))
)
SELECT current_database(), (SELECT count(*) FROM foreign_schema),
    (SELECT json_agg(nspname) FROM (SELECT nspname FROM foreign_schema ORDER BY nspname LIMIT 3) s),
    EXISTS (SELECT FROM relation WHERE nspname = 'public')
        AND NOT EXISTS (SELECT FROM relation WHERE nspname = 'public' AND relname = {history_table}),
    (SELECT json_agg(name) FROM (SELECT name FROM candidate WHERE points > 0 ORDER BY points DESC, name LIMIT 5) c)
