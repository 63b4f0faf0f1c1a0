EXISTS (SELECT FROM (
    SELECT l.relation AS oid
    UNION ALL SELECT a.relid::oid FROM pg_partition_ancestors(l.relation::regclass) a
    UNION ALL SELECT a.relid::oid FROM pg_index x, pg_partition_ancestors(x.indrelid::regclass) a WHERE x.indexrelid = l.relation
    UNION ALL SELECT x.indrelid FROM pg_index x WHERE x.indexrelid = l.relation
    UNION ALL SELECT d.refobjid FROM pg_depend d JOIN pg_class q ON q.oid = d.objid
        WHERE d.classid = 1259 AND d.objid = l.relation AND d.refclassid = 1259 AND d.deptype IN ('a', 'i') AND q.relkind = 'S'
) o WHERE (pg_identify_object(1259, o.oid, 0)).identity = ANY ({listed}))
