-- leave looks at more: locks on what is not a relation, rows locked outside for no key's sake,
-- and the catalogs whose rows change without a lasting lock.
CREATE OR REPLACE FUNCTION leave(own oid, own_name text, history regclass, now_version bigint, now_applied integer, now_digest text)
RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    public_oid CONSTANT oid := (SELECT n.oid FROM pg_namespace n WHERE n.nspname = 'public');
BEGIN
    IF EXISTS (
        SELECT FROM pg_locks l LEFT JOIN pg_class c ON c.oid = l.relation
        WHERE l.pid = pg_backend_pid() AND (l.locktype = 'relation' AND (
            l.mode NOT IN ('AccessShareLock', 'RowShareLock')
            AND (c.oid IS NULL OR c.relnamespace NOT IN (11, 99, own) OR c.oid IN (1260, 1261, 1262, 2613, 2964))
            OR l.mode = 'RowShareLock' AND c.relkind IN ('r', 'p') AND c.relnamespace NOT IN (11, 99, own) AND NOT EXISTS (
                SELECT FROM pg_locks w JOIN pg_constraint f
                ON f.conrelid = w.relation AND f.confrelid = l.relation OR f.conrelid = l.relation AND f.confrelid = w.relation
                WHERE w.locktype = 'relation' AND w.pid = l.pid AND f.contype = 'f'))
        OR l.locktype = 'object' AND (l.classid = 2615 AND l.objid NOT IN (99, own)
            OR l.classid NOT IN (2615, 2604, 2606, 2618, 2620, 3256)
            AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')))
    ) OR EXISTS (
        SELECT FROM pg_depend d WHERE d.refclassid = 2615 AND d.refobjid = public_oid
        AND d.classid <> 1259 AND age(d.xmin) <= age(pg_current_xact_id()::xid)
    ) OR pg_stat_get_xact_tuples_inserted(1255) + pg_stat_get_xact_tuples_updated(1255)
        + pg_stat_get_xact_tuples_updated(1247) + pg_stat_get_xact_tuples_updated(2608) > 0
    OR (SELECT sum(pg_stat_get_xact_tuples_inserted(c) + pg_stat_get_xact_tuples_updated(c)) FROM unnest(
        '{826,1213,1262,1417,2328,2601,2605,2607,2612,2615,2616,2617,2753,2995,3079,3381,3456,3466,3576,3600,3601,3602,3764,6100,6104,6106,6237,6243}'::oid[]) c) > 0
    OR current_setting('track_counts') = 'off' THEN
        RETURN true;
    END IF;
    IF pg_stat_get_xact_tuples_updated(1259) > 0 AND EXISTS (
        SELECT FROM pg_depend d JOIN pg_class c ON c.oid = d.objid WHERE d.refclassid = 2615 AND d.refobjid = public_oid
        AND d.classid = 1259 AND age(c.xmin) <= age(pg_current_xact_id()::xid)
    ) THEN
        RETURN true;
    END IF;
    INSERT INTO pricesync.schema_state AS s
        (schema_name, schema_oid, history_oid, history_file, written_by, version, applied, digest, changed_at)
    VALUES (own_name, own, history, pg_relation_filenode(history), pg_current_xact_id(), now_version, now_applied, now_digest, clock_timestamp())
    ON CONFLICT (schema_name) DO UPDATE SET schema_oid = EXCLUDED.schema_oid, history_oid = EXCLUDED.history_oid,
        history_file = EXCLUDED.history_file, written_by = EXCLUDED.written_by, version = EXCLUDED.version,
        applied = EXCLUDED.applied, digest = EXCLUDED.digest, changed_at = EXCLUDED.changed_at;
    RETURN false;
END
$$;
