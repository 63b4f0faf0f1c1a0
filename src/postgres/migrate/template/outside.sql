-- Names the relations of other schemas that this transaction has locked.
SELECT DISTINCT c.relname
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_class c ON c.oid = l.relation
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.relation >= 16384
    AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
    AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> {schema} AND n.nspname !~ '^pg_'
ORDER BY c.relname
