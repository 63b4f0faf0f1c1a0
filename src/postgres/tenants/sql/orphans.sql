SELECT n.nspname, {unfinished} FROM pg_namespace n
WHERE ({unfinished} OR starts_with(n.nspname::text, {prefix})
    OR EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = {history_table} AND c.relkind IN ('r', 'p')))
  AND n.nspname NOT IN ('public', 'pricesync', 'information_schema') AND NOT starts_with(n.nspname::text, 'pg_')
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_namespace'::regclass AND e.objid = n.oid AND e.deptype = 'e')
  AND NOT n.nspname = ANY (ARRAY[{shared}]::name[])
  AND ({prefix} <> '' OR NOT EXISTS (SELECT FROM pg_extension e WHERE e.extnamespace = n.oid))
  AND NOT starts_with(n.nspname::text, '{trash}') AND NOT starts_with(n.nspname::text, '{dropping}')
  AND NOT EXISTS (SELECT FROM {rows} t WHERE t.schema_name::text = n.nspname::text)
ORDER BY 1
