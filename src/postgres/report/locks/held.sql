-- The locked schemas and the sessions that hold them. The second key of a schema's advisory lock is the
-- schema's oid.
SELECT n.nspname, a.pid, a.application_name, coalesce(host(a.client_addr), 'local'),
    to_char(b.started AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    greatest(0, extract(epoch FROM clock_timestamp() - b.started))::bigint, coalesce(a.state, ''),
    left(regexp_replace(a.query, '\s+', ' ', 'g'), 200)
FROM pg_locks l
JOIN pg_stat_activity a USING (pid)
CROSS JOIN LATERAL (SELECT coalesce(a.xact_start, a.state_change, a.backend_start) AS started) b
LEFT JOIN pg_namespace n ON n.oid = l.objid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = {class}
    AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
ORDER BY 1 NULLS LAST, 2
