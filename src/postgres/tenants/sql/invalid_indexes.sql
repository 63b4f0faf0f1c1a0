-- An index of a partitioned table is invalid until each partition has one. Any role can see the lock
-- of a running build, but not its row in pg_stat_progress_create_index.
SELECT n.nspname, c.relname, t.relname FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid AND c.relkind = 'i'
  AND (n.nspname = 'public' OR EXISTS (SELECT FROM {rows} t WHERE t.schema_name::text = n.nspname::text))
  AND NOT EXISTS (
    SELECT FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'relation' AND l.relation = t.oid AND l.mode = 'ShareUpdateExclusiveLock'
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND a.backend_type IS DISTINCT FROM 'autovacuum worker')
ORDER BY 1, 2
