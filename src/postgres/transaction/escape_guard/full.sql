-- Lists what the transaction changed outside the schema: one row of oid, schema, object and kind for
-- each finding. The first branch decides the types of the columns; names are cast to text, because
-- the other branches return longer texts. `full_question` replaces what is in braces.
WITH own AS (SELECT oid FROM pg_namespace WHERE nspname = {schema}),
{me}
-- Locks on relations of other schemas. Two modes are allowed: reading, and FOR KEY SHARE, which a foreign
-- key needs on the rows that it references. Creating such a key takes SHARE ROW EXCLUSIVE on the table in
-- public, as creating a trigger does: the catalog rows that this transaction wrote tell them apart.
-- An index is reported as its table.
SELECT coalesce(i.oid, l.relation), n.nspname::text, coalesce(i.relname, c.relname)::text,
    CASE WHEN c.relkind = 'S' AND l.mode = 'RowExclusiveLock' THEN 'number drawn or set' ELSE l.mode END FROM pg_locks l
    LEFT JOIN (pg_index x JOIN pg_class i ON i.oid = x.indrelid) ON x.indexrelid = l.relation
    LEFT JOIN pg_class c ON c.oid = l.relation LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE l.locktype = 'relation' AND l.pid = pg_backend_pid()
    AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
    AND (c.oid IS NULL OR (n.oid NOT IN (SELECT oid FROM own)
    AND n.nspname NOT IN ('pg_catalog', 'pg_toast') AND n.nspname !~ '^pg_(toast_)?temp_'))
    AND NOT (l.mode = 'RowExclusiveLock' AND {writable})
    AND NOT ((l.mode = 'ShareRowExclusiveLock' AND c.relkind IN ('r', 'p') AND {referable} OR l.mode = 'AccessExclusiveLock' AND n.nspname = 'public')
    AND (l.mode = 'ShareRowExclusiveLock' OR NOT EXISTS (SELECT FROM me WHERE {own c}))
    AND NOT EXISTS (SELECT FROM pg_trigger t, me WHERE t.tgrelid = l.relation AND NOT t.tgisinternal AND {own t})
    AND NOT EXISTS (SELECT FROM pg_constraint k, me WHERE k.conrelid = l.relation AND {own k})
    AND NOT EXISTS (SELECT FROM pg_attribute b, me WHERE b.attrelid = l.relation AND {own b})
    AND NOT EXISTS (SELECT FROM pg_rewrite r, me WHERE r.ev_class = l.relation AND {own r})
    AND NOT EXISTS (SELECT FROM pg_policy y, me WHERE y.polrelid = l.relation AND {own y})
    AND NOT EXISTS (SELECT FROM pg_index x, me WHERE x.indrelid = l.relation AND {own x}))
UNION ALL
-- Dropping a key takes ACCESS EXCLUSIVE and leaves no row, so the objects that depend on the table are
-- compared with those that another session still sees.
SELECT l.relation, (SELECT 'dropped' FROM pg_locks k WHERE k.locktype = 'object' AND k.pid = l.pid AND k.classid = 2606
    AND k.mode = 'AccessExclusiveLock' LIMIT 1), {shared}, 'compare' FROM pg_locks l
    JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE l.locktype = 'relation' AND l.pid = pg_backend_pid() AND l.mode = 'AccessExclusiveLock' AND n.nspname = 'public'
UNION ALL
-- Locks on other schemas.
SELECT NULL, n.nspname, NULL, 'changed' FROM pg_locks l
    JOIN pg_namespace n ON n.oid = l.objid
WHERE l.locktype = 'object' AND l.pid = pg_backend_pid() AND l.classid = 'pg_namespace'::regclass
    AND n.oid NOT IN (SELECT oid FROM own) AND n.nspname !~ '^pg_(toast_)?temp_' AND n.nspname <> 'pg_toast'
UNION ALL
-- Functions and types of other schemas that were changed.
SELECT l.objid, NULL, i.type || ' ' || i.identity, CASE WHEN i.identity IS NULL THEN l.classid::text ELSE 'named' END
FROM pg_locks l CROSS JOIN LATERAL pg_identify_object(l.classid, l.objid, 0) i
    LEFT JOIN pg_proc p ON l.classid = 'pg_proc'::regclass AND p.oid = l.objid
    LEFT JOIN pg_type t ON l.classid = 'pg_type'::regclass AND t.oid = l.objid
    LEFT JOIN pg_namespace n ON n.oid = coalesce(p.pronamespace, t.typnamespace)
WHERE l.locktype = 'object' AND l.pid = pg_backend_pid() AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
    AND l.classid IN ('pg_proc'::regclass, 'pg_type'::regclass)
    AND (n.oid IS NULL OR (n.oid NOT IN (SELECT oid FROM own) AND n.nspname !~ '^pg_(toast_)?temp_' AND n.nspname <> 'pg_toast'))
UNION ALL
-- Functions and types are created in public without a lock on it.
SELECT NULL, NULL, i.type || ' ' || i.identity, 'named'
FROM pg_namespace n JOIN pg_depend d ON d.refobjid = n.oid CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, 0) i, me
WHERE d.refclassid = 'pg_namespace'::regclass AND n.nspname = 'public'
    AND d.classid <> 'pg_class'::regclass AND {own d}
UNION ALL
-- The same for types that were altered.
SELECT NULL, NULL, i.type || ' ' || i.identity, 'named'
FROM pg_namespace n JOIN pg_depend d ON d.refobjid = n.oid JOIN pg_type t ON t.oid = d.objid
    CROSS JOIN LATERAL pg_identify_object(t.tableoid, t.oid, 0) i, me
WHERE d.refclassid = 'pg_namespace'::regclass AND n.nspname = 'public'
    AND d.classid = 'pg_type'::regclass AND {own t}
UNION ALL
-- Functions are replaced without a lock on their schema.
SELECT NULL, NULL, i.type || ' ' || i.identity, 'named' FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    CROSS JOIN LATERAL pg_identify_object(p.tableoid, p.oid, 0) i, me
WHERE ((SELECT pg_stat_get_xact_tuples_inserted(c) + pg_stat_get_xact_tuples_updated(c) FROM CAST('pg_proc'::regclass AS oid) c) > 0 OR current_setting('track_counts') = 'off')
    AND {own p} AND n.oid NOT IN (SELECT oid FROM own) AND n.nspname !~ '^pg_(toast_)?temp_'
UNION ALL
-- A table that was moved into the schema has columns older than its place.
SELECT NULL, n.nspname, c.relname, 'moved there' FROM own JOIN pg_namespace n ON n.oid = own.oid, pg_locks l, pg_class c, me
WHERE l.locktype = 'relation' AND l.pid = pg_backend_pid() AND l.mode = 'AccessExclusiveLock'
    AND c.oid = l.relation AND c.relnamespace = own.oid
    AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
    AND d.refclassid = 'pg_namespace'::regclass AND {own d})
    AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT {own a})
UNION ALL
-- Locks on objects that are neither relations nor parts of relations.
SELECT l.objid, NULL, i.type || ' ' || i.identity, CASE WHEN i.identity IS NULL THEN l.classid::text ELSE 'named' END
FROM pg_locks l, LATERAL pg_identify_object(l.classid, l.objid, 0) i
WHERE l.locktype = 'object' AND l.pid = pg_backend_pid() AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
    AND l.classid NOT IN (2604, 2606, 2618, 2620, 3256, 2615, 1255, 1247) AND (i.identity IS NULL OR {foreign})
UNION ALL
-- Shared catalogs.
SELECT NULL, NULL, CASE l.relation WHEN 1260 THEN 'roles' WHEN 1261 THEN 'memberships of roles' WHEN 1262 THEN 'databases'
    WHEN 2613 THEN 'large objects' ELSE 'settings of roles and databases' END, 'named'
FROM pg_locks l WHERE l.locktype = 'relation' AND l.pid = pg_backend_pid() AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
    AND l.relation IN (1260, 1261, 1262, 2613, 2964)
UNION ALL
-- SELECT ... FOR UPDATE and the like, unless a foreign key locked the rows.
SELECT c.oid, n.nspname, c.relname, 'rows locked' FROM pg_locks l
    JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE l.locktype = 'relation' AND l.pid = pg_backend_pid() AND l.mode = 'RowShareLock' AND c.relkind IN ('r', 'p')
    AND NOT {writable} AND n.nspname NOT IN ({schema}, 'pg_catalog', 'pg_toast') AND n.nspname !~ '^pg_(toast_)?temp_'
    AND NOT EXISTS (SELECT FROM pg_locks w JOIN pg_constraint f
        ON f.conrelid = w.relation AND f.confrelid = l.relation OR f.conrelid = l.relation AND f.confrelid = w.relation
        WHERE w.locktype = 'relation' AND w.pid = l.pid AND f.contype = 'f')
    AND NOT EXISTS (SELECT FROM pg_locks w WHERE w.locktype = 'relation' AND w.pid = l.pid AND NOT EXISTS (SELECT FROM pg_class x WHERE x.oid = w.relation))
UNION ALL
-- Privileges.
SELECT c.oid, NULL, coalesce(c.relacl::text, ''), 'privileges' FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, me
WHERE pg_stat_get_xact_tuples_updated(1259) > 0 AND c.relnamespace NOT IN (SELECT oid FROM own)
    AND n.nspname NOT IN ('pg_catalog', 'pg_toast') AND n.nspname !~ '^pg_(toast_)?temp_' AND {own c} AND {visible}
UNION ALL
-- Types, where code ran that pricesync cannot read.
SELECT NULL, NULL, i.type || ' ' || i.identity, 'named' FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    CROSS JOIN LATERAL pg_identify_object(t.tableoid, t.oid, 0) i, me
WHERE {wide} AND t.typnamespace NOT IN (SELECT oid FROM own)
    AND n.nspname NOT IN ('pg_catalog', 'pg_toast') AND n.nspname !~ '^pg_(toast_)?temp_' AND {own t}
UNION ALL
-- Catalogs whose rows change without a lock.
SELECT NULL, NULL, c::regclass::text, 'written' FROM unnest('{{catalogs}}'::oid[]) c
WHERE pg_stat_get_xact_tuples_inserted(c) + pg_stat_get_xact_tuples_updated(c) > 0
    OR current_setting('track_counts') = 'off' AND EXISTS (SELECT FROM pg_class k WHERE k.oid = c)
