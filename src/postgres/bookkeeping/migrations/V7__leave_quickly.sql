-- leave asks in steps, cheapest first. What a run does a thousand times is a look at our own locks by
-- name, without a table of locks joined to catalogs, and the counters, without a query. The exact
-- question behind it is planned and asked only where the look says that it has to be. A catalog row is
-- looked for in public only where one could have been written. Each plan is made once in a session, not
-- five times.
CREATE OR REPLACE FUNCTION leave(own oid, own_name text, history regclass, now_version bigint, now_applied integer, now_digest text)
RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    public_oid CONSTANT oid := to_regnamespace('public');
    own_prefix CONSTANT text := quote_ident(own_name) || '.';
BEGIN
    IF pg_stat_get_xact_tuples_inserted(1255) + pg_stat_get_xact_tuples_updated(1255)
        + pg_stat_get_xact_tuples_updated(1247) + pg_stat_get_xact_tuples_updated(2608)
        + pg_stat_get_xact_tuples_inserted(826) + pg_stat_get_xact_tuples_updated(826)
        + pg_stat_get_xact_tuples_inserted(1213) + pg_stat_get_xact_tuples_updated(1213)
        + pg_stat_get_xact_tuples_inserted(1262) + pg_stat_get_xact_tuples_updated(1262)
        + pg_stat_get_xact_tuples_inserted(1417) + pg_stat_get_xact_tuples_updated(1417)
        + pg_stat_get_xact_tuples_inserted(2328) + pg_stat_get_xact_tuples_updated(2328)
        + pg_stat_get_xact_tuples_inserted(2601) + pg_stat_get_xact_tuples_updated(2601)
        + pg_stat_get_xact_tuples_inserted(2605) + pg_stat_get_xact_tuples_updated(2605)
        + pg_stat_get_xact_tuples_inserted(2607) + pg_stat_get_xact_tuples_updated(2607)
        + pg_stat_get_xact_tuples_inserted(2612) + pg_stat_get_xact_tuples_updated(2612)
        + pg_stat_get_xact_tuples_inserted(2615) + pg_stat_get_xact_tuples_updated(2615)
        + pg_stat_get_xact_tuples_inserted(2616) + pg_stat_get_xact_tuples_updated(2616)
        + pg_stat_get_xact_tuples_inserted(2617) + pg_stat_get_xact_tuples_updated(2617)
        + pg_stat_get_xact_tuples_inserted(2753) + pg_stat_get_xact_tuples_updated(2753)
        + pg_stat_get_xact_tuples_inserted(2995) + pg_stat_get_xact_tuples_updated(2995)
        + pg_stat_get_xact_tuples_inserted(3079) + pg_stat_get_xact_tuples_updated(3079)
        + pg_stat_get_xact_tuples_inserted(3381) + pg_stat_get_xact_tuples_updated(3381)
        + pg_stat_get_xact_tuples_inserted(3456) + pg_stat_get_xact_tuples_updated(3456)
        + pg_stat_get_xact_tuples_inserted(3466) + pg_stat_get_xact_tuples_updated(3466)
        + pg_stat_get_xact_tuples_inserted(3576) + pg_stat_get_xact_tuples_updated(3576)
        + pg_stat_get_xact_tuples_inserted(3600) + pg_stat_get_xact_tuples_updated(3600)
        + pg_stat_get_xact_tuples_inserted(3601) + pg_stat_get_xact_tuples_updated(3601)
        + pg_stat_get_xact_tuples_inserted(3602) + pg_stat_get_xact_tuples_updated(3602)
        + pg_stat_get_xact_tuples_inserted(3764) + pg_stat_get_xact_tuples_updated(3764)
        + pg_stat_get_xact_tuples_inserted(6100) + pg_stat_get_xact_tuples_updated(6100)
        + pg_stat_get_xact_tuples_inserted(6104) + pg_stat_get_xact_tuples_updated(6104)
        + pg_stat_get_xact_tuples_inserted(6106) + pg_stat_get_xact_tuples_updated(6106)
        + pg_stat_get_xact_tuples_inserted(6237) + pg_stat_get_xact_tuples_updated(6237)
        + pg_stat_get_xact_tuples_inserted(6243) + pg_stat_get_xact_tuples_updated(6243) > 0
    OR current_setting('track_counts') = 'off' THEN
        RETURN true;
    END IF;
    IF EXISTS (
        SELECT FROM pg_lock_status() l WHERE l.pid = pg_backend_pid() AND CASE l.locktype
            -- Below 10000 is what the server's catalogs are.
            WHEN 'relation' THEN l.mode <> 'AccessShareLock' AND (l.relation >= 10000 OR l.relation IN (1260, 1261, 1262, 2613, 2964))
                AND NOT starts_with(l.relation::regclass::text, own_prefix) AND NOT starts_with(l.relation::regclass::text, 'pg_toast.')
            WHEN 'object' THEN l.classid = 2615 AND l.objid NOT IN (99, own)
                OR l.classid NOT IN (2615, 2604, 2606, 2618, 2620, 3256) AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
            ELSE false END
    ) THEN
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
        ) THEN
            RETURN true;
        END IF;
    END IF;
    IF pg_stat_get_xact_tuples_inserted(1247) > 0 THEN
        IF EXISTS (
            SELECT FROM pg_depend d WHERE d.refclassid = 2615 AND d.refobjid = public_oid
            AND d.classid <> 1259 AND age(d.xmin) <= age(pg_current_xact_id()::xid)
        ) THEN
            RETURN true;
        END IF;
    END IF;
    IF pg_stat_get_xact_tuples_updated(1259) > 0 THEN
        IF EXISTS (
            SELECT FROM pg_depend d JOIN pg_class c ON c.oid = d.objid WHERE d.refclassid = 2615 AND d.refobjid = public_oid
            AND d.classid = 1259 AND age(c.xmin) <= age(pg_current_xact_id()::xid)
        ) THEN
            RETURN true;
        END IF;
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
