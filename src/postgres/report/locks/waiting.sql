-- The sessions that wait for a lock, once for each session that blocks them.
SELECT h.pid, a.pid, a.application_name,
    coalesce(min(w.relation::regclass::text), min(w.locktype), 'a lock')
FROM pg_stat_activity a
CROSS JOIN LATERAL unnest(pg_blocking_pids(a.pid)) AS h (pid)
LEFT JOIN pg_locks w ON w.pid = a.pid AND NOT w.granted
WHERE a.wait_event_type = 'Lock'
GROUP BY 1, 2, 3
ORDER BY 1, 2
