-- Schemas that no tenant's row names: whether a creation of them has not finished, whether each has a history
-- or a table as a tenant's schema has, and otherwise the names of some of its tables.
SELECT n.nspname, {unfinished}, k.is_known, CASE WHEN NOT k.is_known THEN
    (SELECT json_agg(relname) FROM (SELECT c.relname FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm') ORDER BY 1 LIMIT 1000) c) END
FROM pg_namespace n CROSS JOIN LATERAL (SELECT EXISTS (
    SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p') AND (c.relname = {history_table} OR EXISTS (
        SELECT FROM pg_class o JOIN pg_namespace m ON m.oid = o.relnamespace JOIN {rows} t ON t.schema_name::text = m.nspname::text
        WHERE o.relname = c.relname AND o.relkind IN ('r', 'p') AND m.nspname <> 'public'))
) AS is_known OFFSET 0) k
WHERE ({unfinished} OR starts_with(n.nspname::text, {prefix})
    OR EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = {history_table} AND c.relkind IN ('r', 'p')))
  AND n.nspname NOT IN ('public', 'pricesync', 'information_schema') AND NOT starts_with(n.nspname::text, 'pg_')
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_namespace'::regclass AND e.objid = n.oid AND e.deptype = 'e')
  AND NOT n.nspname = ANY (ARRAY[{shared}]::name[])
  AND ({prefix} <> '' OR NOT EXISTS (SELECT FROM pg_extension e WHERE e.extnamespace = n.oid))
  AND NOT starts_with(n.nspname::text, '{trash}') AND NOT starts_with(n.nspname::text, '{dropping}')
  AND NOT EXISTS (SELECT FROM {rows} t WHERE t.schema_name::text = n.nspname::text)
ORDER BY 1
