-- The objects outside some schemas that DROP ... CASCADE of the start would drop, as descriptions,
-- with the extension's name where the object is one. Follows pg_depend as findDependentObjects in the
-- server's dependency.c does: to whatever depends on a dropped object, and from an internal part to
-- its whole (from a view's rule to the view). A part of a listed object is not listed itself.
--
-- The planner expects thousands of rows, and compiling for them takes seconds. count(*) = 0 instead of
-- NOT EXISTS keeps it from reading all of pg_depend, which has millions of rows in a large fleet.
SET LOCAL jit TO off;
WITH RECURSIVE gone (classid, objid, objsubid) AS (
    {start}
    UNION
    SELECT d.classid, d.objid, d.objsubid FROM gone g CROSS JOIN LATERAL (
        SELECT p.classid, p.objid, p.objsubid FROM pg_depend p
        WHERE p.refclassid = g.classid AND p.refobjid = g.objid AND (g.objsubid = 0 OR p.refobjsubid = g.objsubid)
        UNION ALL
        SELECT p.refclassid, p.refobjid, p.refobjsubid FROM pg_depend p
        WHERE p.classid = g.classid AND p.objid = g.objid AND p.objsubid = g.objsubid AND p.deptype = 'i'
    ) d
), outside AS (
    SELECT g.* FROM gone g WHERE coalesce(CASE g.classid
        WHEN 'pg_namespace'::regclass THEN g.objid
        WHEN 'pg_class'::regclass THEN (SELECT x.relnamespace FROM pg_class x WHERE x.oid = g.objid)
        WHEN 'pg_type'::regclass THEN (SELECT x.typnamespace FROM pg_type x WHERE x.oid = g.objid)
        WHEN 'pg_proc'::regclass THEN (SELECT x.pronamespace FROM pg_proc x WHERE x.oid = g.objid)
        WHEN 'pg_constraint'::regclass THEN (SELECT x.connamespace FROM pg_constraint x WHERE x.oid = g.objid)
        WHEN 'pg_operator'::regclass THEN (SELECT x.oprnamespace FROM pg_operator x WHERE x.oid = g.objid)
        WHEN 'pg_opclass'::regclass THEN (SELECT x.opcnamespace FROM pg_opclass x WHERE x.oid = g.objid)
        WHEN 'pg_opfamily'::regclass THEN (SELECT x.opfnamespace FROM pg_opfamily x WHERE x.oid = g.objid)
        WHEN 'pg_collation'::regclass THEN (SELECT x.collnamespace FROM pg_collation x WHERE x.oid = g.objid)
        WHEN 'pg_conversion'::regclass THEN (SELECT x.connamespace FROM pg_conversion x WHERE x.oid = g.objid)
        WHEN 'pg_ts_config'::regclass THEN (SELECT x.cfgnamespace FROM pg_ts_config x WHERE x.oid = g.objid)
        WHEN 'pg_ts_dict'::regclass THEN (SELECT x.dictnamespace FROM pg_ts_dict x WHERE x.oid = g.objid)
        WHEN 'pg_ts_parser'::regclass THEN (SELECT x.prsnamespace FROM pg_ts_parser x WHERE x.oid = g.objid)
        WHEN 'pg_ts_template'::regclass THEN (SELECT x.tmplnamespace FROM pg_ts_template x WHERE x.oid = g.objid)
        WHEN 'pg_statistic_ext'::regclass THEN (SELECT x.stxnamespace FROM pg_statistic_ext x WHERE x.oid = g.objid)
        WHEN 'pg_attrdef'::regclass THEN
            (SELECT c.relnamespace FROM pg_attrdef x JOIN pg_class c ON c.oid = x.adrelid WHERE x.oid = g.objid)
        WHEN 'pg_rewrite'::regclass THEN
            (SELECT c.relnamespace FROM pg_rewrite x JOIN pg_class c ON c.oid = x.ev_class WHERE x.oid = g.objid)
        WHEN 'pg_trigger'::regclass THEN
            (SELECT c.relnamespace FROM pg_trigger x JOIN pg_class c ON c.oid = x.tgrelid WHERE x.oid = g.objid)
        WHEN 'pg_policy'::regclass THEN
            (SELECT c.relnamespace FROM pg_policy x JOIN pg_class c ON c.oid = x.polrelid WHERE x.oid = g.objid)
    END, 0) NOT IN ({schemas})
)
SELECT pg_describe_object(g.classid, g.objid, g.objsubid),
    (SELECT e.extname FROM pg_extension e WHERE e.oid = g.objid AND g.classid = 'pg_extension'::regclass)
FROM outside g
WHERE g.classid NOT IN ('pg_default_acl'::regclass, 'pg_publication_rel'::regclass, 'pg_amop'::regclass,
        'pg_amproc'::regclass, coalesce(to_regclass('pg_publication_namespace'), 0::oid))
    AND (
        SELECT count(*) FROM pg_depend p
        WHERE p.classid = g.classid AND p.objid = g.objid AND p.objsubid = g.objsubid AND (p.deptype = 'e'
            OR p.deptype = 'i' AND ((p.refclassid, p.refobjid, 0) IN (SELECT o.classid, o.objid, o.objsubid FROM gone o)
                OR (p.refclassid, p.refobjid, p.refobjsubid) IN (SELECT o.classid, o.objid, o.objsubid FROM gone o))
            OR p.deptype IN ('a', 'P', 'S') AND (
                (p.refclassid, p.refobjid, 0) IN (SELECT o.classid, o.objid, o.objsubid FROM outside o)
                OR (p.refclassid, p.refobjid, p.refobjsubid) IN (SELECT o.classid, o.objid, o.objsubid FROM outside o)))
    ) = 0
ORDER BY 2, 1 LIMIT 100
