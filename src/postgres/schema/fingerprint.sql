-- Describes each object of the schema in one line of text, with unqualified names.
--
-- Starts from the schema's own entries in pg_depend and uses indexes only, so that the time does not grow
-- with the number of schemas. Columns that not every server version has are read from the row as JSON.
-- Run through relative_to.sql, so that no operator or function of the schema is called.
WITH ns AS (
    SELECT oid, nspname, quote_ident(nspname) || '.' AS prefix FROM pg_namespace WHERE nspname = {schema}
), member AS MATERIALIZED (
    SELECT d.classid, d.objid FROM ns
    JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = ns.oid
), rel AS MATERIALIZED (
    SELECT c.* FROM (
        SELECT objid AS oid FROM member WHERE classid = 'pg_class'::regclass
        UNION
        SELECT t.typrelid FROM member m JOIN pg_type t ON t.oid = m.objid
        WHERE m.classid = 'pg_type'::regclass AND t.typrelid <> 0
    ) o JOIN pg_class c ON c.oid = o.oid
), proc AS MATERIALIZED (
    SELECT p.* FROM member m JOIN pg_proc p ON p.oid = m.objid WHERE m.classid = 'pg_proc'::regclass
), own_path AS MATERIALIZED (
{own_path}), kind AS MATERIALIZED (
    SELECT t.* FROM member m JOIN pg_type t ON t.oid = m.objid WHERE m.classid = 'pg_type'::regclass
), con AS MATERIALIZED (
    SELECT k.oid, k.conname, k.contype, k.condeferrable, k.condeferred, k.convalidated, k.conislocal,
        k.coninhcount, k.connoinherit, quote_ident(rel.relname) AS owner,
        -- The server numbers its copies of a key for each partition that the key refers to.
        EXISTS (SELECT FROM pg_constraint p WHERE p.oid = k.conparentid AND p.conrelid = k.conrelid) AS numbered
    FROM rel JOIN pg_constraint k ON k.conrelid = rel.oid
    UNION ALL
    SELECT k.oid, k.conname, k.contype, k.condeferrable, k.condeferred, k.convalidated, k.conislocal,
        k.coninhcount, k.connoinherit, 'type ' || quote_ident(kind.typname), false
    FROM kind JOIN pg_constraint k ON k.contypid = kind.oid AND k.conrelid = 0
), ind AS MATERIALIZED (
    SELECT x.*, i.relname, i.reltablespace, i.relowner, quote_ident(rel.relname) AS owner
    FROM rel JOIN pg_index x ON x.indrelid = rel.oid JOIN pg_class i ON i.oid = x.indexrelid
), trg AS MATERIALIZED (
    SELECT t.oid, t.tgname, t.tgenabled, quote_ident(rel.relname) AS owner
    FROM rel JOIN pg_trigger t ON t.tgrelid = rel.oid
    -- Before PostgreSQL 15 the copy of a trigger in a partition counts as internal.
    WHERE NOT t.tgisinternal OR t.tgparentid <> 0 AND t.tgconstraint = 0
), rul AS MATERIALIZED (
    SELECT w.oid, w.rulename, w.ev_enabled, rel.relkind, rel.oid AS relation, quote_ident(rel.relname) AS owner
    FROM rel JOIN pg_rewrite w ON w.ev_class = rel.oid
), pol AS MATERIALIZED (
    SELECT y.*, quote_ident(rel.relname) AS owner FROM rel JOIN pg_policy y ON y.polrelid = rel.oid
), named AS MATERIALIZED (
    SELECT 'pg_class'::regclass AS classid, oid AS objid, 'relation ' || quote_ident(relname) AS label FROM rel
    UNION ALL SELECT 'pg_class'::regclass, indexrelid, 'index ' || quote_ident(relname) FROM ind
    UNION ALL SELECT 'pg_constraint'::regclass, oid, format('constraint %I on %s', conname, owner) FROM con
    UNION ALL SELECT 'pg_trigger'::regclass, oid, format('trigger %I on %s', tgname, owner) FROM trg
    UNION ALL SELECT 'pg_rewrite'::regclass, oid, format('rule %I on %s', rulename, owner) FROM rul
    UNION ALL SELECT 'pg_policy'::regclass, oid, format('policy %I on %s', polname, owner) FROM pol
    UNION ALL SELECT 'pg_proc'::regclass, oid,
        format('function %I(%s)', proname, pg_get_function_identity_arguments(oid)) FROM proc
    UNION ALL SELECT 'pg_type'::regclass, oid, 'type ' || quote_ident(typname) FROM kind
    UNION ALL
    SELECT m.classid, m.objid, a.type || ' ' || (SELECT string_agg(CASE WHEN name = ns.nspname THEN '' WHEN starts_with(name, ns.prefix) THEN substr(name, length(ns.prefix) + 1) ELSE name END,
        '.' ORDER BY place) FROM unnest(a.object_names) WITH ORDINALITY o(name, place))
    FROM member m, ns, LATERAL pg_identify_object_as_address(m.classid, m.objid, 0) a
    WHERE m.classid NOT IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_type'::regclass)
)
SELECT concat_ws(' ', 'relation', quote_ident(relname), 'kind=' || relkind::text, 'persistence=' || relpersistence::text,
    'owner=' || pg_get_userbyid(relowner),
    'acl=' || nullif((SELECT string_agg(a::text, ',' ORDER BY a::text COLLATE "C") FROM unnest(relacl) a),
        (SELECT string_agg(a::text, ',' ORDER BY a::text COLLATE "C") FROM unnest(acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)) a)),
    CASE WHEN relrowsecurity THEN 'row-security' END, CASE WHEN relforcerowsecurity THEN 'forced' END,
    CASE WHEN relkind IN ('r', 'p', 'm') THEN 'replica-identity=' || relreplident::text END,
    'method=' || (SELECT amname FROM pg_am WHERE pg_am.oid = relam),
    'options=' || reloptions::text,
    'toast-options=' || (SELECT t.reloptions::text FROM pg_class t WHERE t.oid = rel.reltoastrelid),
    'tablespace=' || (SELECT spcname FROM pg_tablespace s WHERE s.oid = reltablespace),
    CASE WHEN NOT relispopulated THEN 'not-populated' END,
    'partitioned=' || CASE WHEN relkind = 'p' THEN pg_get_partkeydef(rel.oid) END,
    'partition=' || pg_get_expr(relpartbound, rel.oid),
    'of=' || CASE WHEN reloftype <> 0 THEN format_type(reloftype, NULL) END,
    'inherits=' || (SELECT string_agg(inhparent::regclass::text, ',' ORDER BY inhseqno) FROM pg_inherits WHERE inhrelid = rel.oid),
    'foreign=' || (SELECT s.srvname || f.ftoptions::text FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE f.ftrelid = rel.oid),
    'published=' || (SELECT string_agg(concat(p.pubname, to_jsonb(r)->>'prattrs', CASE WHEN to_jsonb(r)->>'prqual' <> '' THEN ' where' END), ',' ORDER BY p.pubname)
        FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = rel.oid)) AS line
FROM rel
UNION ALL
SELECT concat_ws(' ', 'state', quote_ident(relname), CASE
    WHEN relname = {history} THEN 'history'
    WHEN row_security_active(rel.oid) THEN 'hidden'
    -- Planning inlines SQL functions of partial indexes, whose bodies may use names of public.
    WHEN (ARRAY[
        set_config('search_path', quote_ident(ns.nspname) || ', public', true),
        query_to_xml(format('SELECT 1 FROM %I.%I LIMIT 1', ns.nspname, relname), false, true, '')::text,
        set_config('search_path', quote_ident(ns.nspname), true)
    ])[2] = '' THEN 'empty'
    ELSE 'filled' END)
FROM rel, ns WHERE relkind IN ('r', 'p')
UNION ALL
SELECT concat_ws(' ', 'column', quote_ident(rel.relname),
    row_number() OVER (PARTITION BY rel.oid ORDER BY a.attnum), quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
    CASE WHEN a.attnotnull THEN 'not-null' END,
    'default=' || (SELECT pg_get_expr(f.adbin, f.adrelid) FROM pg_attrdef f WHERE f.adrelid = a.attrelid AND f.adnum = a.attnum),
    'identity=' || nullif(a.attidentity::text, ''), 'generated=' || nullif(a.attgenerated::text, ''),
    'collation=' || nullif(a.attcollation, 0)::regcollation::text, 'storage=' || a.attstorage::text,
    'compression=' || nullif(to_jsonb(a)->>'attcompression', ''),
    'statistics=' || nullif(to_jsonb(a)->>'attstattarget', '-1'),
    CASE WHEN NOT a.attislocal THEN 'not-local' END, 'inherited=' || nullif(a.attinhcount::int, 0),
    'acl=' || (SELECT string_agg(x::text, ',' ORDER BY x::text COLLATE "C") FROM unnest(a.attacl) x),
    -- The minor releases of 15.20's date count a column's versions there, which is not structure.
    'options=' || (SELECT string_agg(o, ',' ORDER BY n) FROM unnest(a.attoptions) WITH ORDINALITY u (o, n) WHERE NOT starts_with(o, 'pg_attver=')),
    'foreign=' || a.attfdwoptions::text)
FROM rel JOIN pg_attribute a ON a.attrelid = rel.oid AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT concat_ws(' ', 'constraint', CASE WHEN NOT numbered THEN quote_ident(conname) END, 'on', owner, contype::text, pg_get_constraintdef(oid),
    CASE WHEN NOT convalidated THEN 'not-validated' END, CASE WHEN condeferrable THEN 'deferrable' END,
    CASE WHEN condeferred THEN 'deferred' END, CASE WHEN NOT conislocal THEN 'not-local' END,
    'inherited=' || nullif(coninhcount::int, 0),
    -- Of a key it says only whether it was attached, or created with that of the partitioned table.
    CASE WHEN connoinherit AND contype IN ('c', 'n') THEN 'no-inherit' END,
    'triggers=' || (SELECT string_agg(concat_ws('/', t.tgrelid::regclass, t.tgfoid::regproc, t.tgtype, t.tgenabled), ','
        ORDER BY t.tgfoid, t.tgtype, t.tgenabled) FROM pg_trigger t WHERE t.tgconstraint = con.oid AND t.tgisinternal))
FROM con
UNION ALL
SELECT concat_ws(' ', 'index', quote_ident(relname), 'on', owner, pg_get_indexdef(indexrelid, 0, true),
    'owner=' || pg_get_userbyid(relowner),
    CASE WHEN NOT indisvalid THEN 'invalid' END, CASE WHEN NOT indisready THEN 'not-ready' END,
    CASE WHEN NOT indislive THEN 'not-live' END, CASE WHEN indisprimary THEN 'primary' END,
    CASE WHEN indisclustered THEN 'clustered' END, CASE WHEN indisreplident THEN 'replica-identity' END,
    CASE WHEN NOT indimmediate THEN 'not-immediate' END,
    'tablespace=' || (SELECT spcname FROM pg_tablespace s WHERE s.oid = reltablespace),
    'statistics=' || (SELECT string_agg(concat(a.attnum, ':', to_jsonb(a)->>'attstattarget'), ',' ORDER BY a.attnum)
        FROM pg_attribute a WHERE a.attrelid = indexrelid AND a.attnum > 0 AND to_jsonb(a)->>'attstattarget' <> '-1'))
FROM ind
UNION ALL
SELECT concat_ws(' ', 'sequence', quote_ident(rel.relname), format_type(q.seqtypid, NULL), 'start', q.seqstart, 'increment', q.seqincrement,
    'min', q.seqmin, 'max', q.seqmax, 'cache', q.seqcache, CASE WHEN q.seqcycle THEN 'cycle' END,
    'owned-by=' || (SELECT format('%I.%I(%s)', t.relname, a.attname, d.deptype) FROM pg_depend d JOIN pg_class t ON t.oid = d.refobjid
        JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        WHERE d.classid = 'pg_class'::regclass AND d.objid = rel.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')))
FROM rel JOIN pg_sequence q ON q.seqrelid = rel.oid
UNION ALL
SELECT concat_ws(' ', 'state', quote_ident(relname),
    regexp_replace(query_to_xml(format('SELECT last_value, is_called FROM %I.%I', ns.nspname, relname), false, true, '')::text,
        '.*<last_value>(.*)</last_value>.*<is_called>(.*)</is_called>.*', '\1 \2'))
FROM rel, ns WHERE relkind = 'S'
UNION ALL
SELECT concat_ws(' ', 'trigger', quote_ident(tgname), 'on', owner, pg_get_triggerdef(oid, true), 'enabled=' || tgenabled::text) FROM trg
UNION ALL
SELECT concat_ws(' ', 'rule', quote_ident(rulename), 'on', owner,
    CASE WHEN relkind IN ('v', 'm') AND rulename = '_RETURN' THEN pg_get_viewdef(relation) ELSE pg_get_ruledef(oid, true) END,
    'enabled=' || ev_enabled::text)
FROM rul
UNION ALL
SELECT concat_ws(' ', 'policy', quote_ident(polname), 'on', owner, 'for', polcmd::text, CASE WHEN NOT polpermissive THEN 'restrictive' END, 'to',
    (SELECT string_agg(CASE WHEN r = 0 THEN 'public' ELSE quote_ident(pg_get_userbyid(r)) END, ',' ORDER BY pg_get_userbyid(r)) FROM unnest(polroles) r),
    'using ' || pg_get_expr(polqual, polrelid), 'check ' || pg_get_expr(polwithcheck, polrelid))
FROM pol
UNION ALL
SELECT concat_ws(' ', 'function', quote_ident(proname), pg_get_function_identity_arguments(oid), 'kind=' || prokind::text, 'owner=' || pg_get_userbyid(proowner),
    'acl=' || nullif((SELECT string_agg(a::text, ',' ORDER BY a::text COLLATE "C") FROM unnest(proacl) a),
        (SELECT string_agg(a::text, ',' ORDER BY a::text COLLATE "C") FROM unnest(acldefault('f', proowner)) a)),
    CASE WHEN prokind <> 'a' THEN (SELECT substr(def, length(ns.prefix) + length('CREATE OR REPLACE ' || CASE prokind WHEN 'p' THEN 'PROCEDURE ' ELSE 'FUNCTION ' END) + 1)
        FROM coalesce((SELECT o.named FROM own_path o WHERE o.oid = proc.oid), pg_get_functiondef(oid)) def, ns)
    ELSE (SELECT concat_ws(' ', format_type(g.aggtranstype, NULL), g.aggtransfn, g.aggfinalfn, g.aggcombinefn, g.aggserialfn, g.aggdeserialfn, g.aggmtransfn, g.aggminvtransfn,
        g.aggmfinalfn, g.aggkind, g.aggnumdirectargs, g.aggsortop::regoperator, g.aggtransspace, g.agginitval, g.aggminitval) FROM pg_aggregate g WHERE g.aggfnoid = proc.oid) END)
FROM proc
UNION ALL
SELECT concat_ws(' ', 'type', quote_ident(typname), 'kind=' || typtype::text, 'owner=' || pg_get_userbyid(typowner),
    'acl=' || nullif((SELECT string_agg(a::text, ',' ORDER BY a::text COLLATE "C") FROM unnest(typacl) a),
        (SELECT string_agg(a::text, ',' ORDER BY a::text COLLATE "C") FROM unnest(acldefault('T', typowner)) a)),
    'base=' || CASE WHEN typtype = 'd' THEN format_type(typbasetype, typtypmod) END, CASE WHEN typnotnull THEN 'not-null' END,
    'default=' || coalesce(pg_get_expr(typdefaultbin, 0), typdefault), 'collation=' || nullif(typcollation, 0)::regcollation::text,
    'labels=' || (SELECT string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = kind.oid),
    'range=' || (SELECT concat_ws('/', format_type(g.rngsubtype, NULL), g.rngcollation::regcollation, g.rngcanonical, g.rngsubdiff, o.opcname,
        to_jsonb(g)->>'rngmultitypid' IS NOT NULL) FROM pg_range g JOIN pg_opclass o ON o.oid = g.rngsubopc WHERE g.rngtypid = kind.oid),
    'base-type=' || CASE WHEN typtype = 'b' THEN concat_ws('/', typlen, typbyval, typcategory, typispreferred, typdelim, typinput, typoutput, typreceive,
        typsend, typmodin, typmodout, typanalyze, typalign, typstorage, CASE WHEN typelem <> 0 THEN format_type(typelem, NULL) END) END)
FROM kind
UNION ALL
SELECT concat_ws(' ', 'statistics', quote_ident(x.stxname), (SELECT substr(pg_get_statisticsobjdef(x.oid), length('CREATE STATISTICS ' || ns.prefix) + 1) FROM ns),
    'owner=' || pg_get_userbyid(x.stxowner), 'target=' || nullif(to_jsonb(x)->>'stxstattarget', '-1'))
FROM member m JOIN pg_statistic_ext x ON x.oid = m.objid WHERE m.classid = 'pg_statistic_ext'::regclass
UNION ALL
SELECT format('default-acl %s %s %s', pg_get_userbyid(a.defaclrole), a.defaclobjtype, a.defaclacl)
FROM member m JOIN pg_default_acl a ON a.oid = m.objid WHERE m.classid = 'pg_default_acl'::regclass
UNION ALL
SELECT format('comment on %s%s: %s', n.label, (SELECT '.' || quote_ident(a.attname) FROM pg_attribute a WHERE d.objsubid <> 0
    AND d.classoid = 'pg_class'::regclass AND a.attrelid = d.objoid AND a.attnum = d.objsubid), d.description)
FROM named n JOIN pg_description d ON d.objoid = n.objid AND d.classoid = n.classid
UNION ALL
SELECT format('label on %s %s: %s %s', n.label, (SELECT a.attname FROM pg_attribute a WHERE s.objsubid <> 0
    AND s.classoid = 'pg_class'::regclass AND a.attrelid = s.objoid AND a.attnum = s.objsubid), s.provider, s.label)
FROM named n JOIN pg_seclabel s ON s.objoid = n.objid AND s.classoid = n.classid
UNION ALL
SELECT concat_ws(' ', 'member', a.type,
    (SELECT string_agg(CASE WHEN name = ns.nspname AND (place = 1 OR a.type = 'default acl') THEN '' WHEN starts_with(name, ns.prefix) THEN substr(name, length(ns.prefix) + 1) ELSE name END,
        '.' ORDER BY place) FROM unnest(a.object_names) WITH ORDINALITY o(name, place)),
    (SELECT string_agg(replace(name, ns.prefix, ''), ',' ORDER BY place) FROM unnest(a.object_args) WITH ORDINALITY o(name, place)))
FROM member m, ns, LATERAL pg_identify_object_as_address(m.classid, m.objid, 0) a
