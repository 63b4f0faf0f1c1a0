-- Of which statements does the schema consist? Columns: what, node, position, text, other node.
--
--   refuse      why the schema cannot be written down
--   create      a whole statement that makes the node
--   table       the beginning of CREATE TABLE; `end` holds what follows the parentheses
--   in-table    a column or constraint within the parentheses
--   key         a foreign key: a node of its own, to be written into its table where possible
--   after       a statement that follows the node
--   last        a statement that follows everything
--   edge        the node needs the other node
--
-- The history table is not written down. Read as lines.sql is.
WITH ns AS (
    SELECT oid, nspname, quote_ident(nspname) || '.' AS prefix FROM pg_namespace WHERE nspname = {schema}
), member AS MATERIALIZED (
    SELECT d.classid, d.objid FROM ns
    JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = ns.oid
), rel AS MATERIALIZED (
    SELECT c.*, 'r' || c.oid AS node, quote_ident(c.relname) AS called FROM member m JOIN pg_class c ON c.oid = m.objid
    WHERE m.classid = 'pg_class'::regclass AND c.relname <> {history}
), kind AS MATERIALIZED (
    SELECT t.*, 't' || t.oid AS node, quote_ident(t.typname) AS called FROM member m JOIN pg_type t ON t.oid = m.objid
    WHERE m.classid = 'pg_type'::regclass AND t.typtype <> 'm' AND NOT EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'i' AND d.refclassid = 'pg_type'::regclass)
), proc AS MATERIALIZED (
    SELECT p.*, 'f' || p.oid AS node FROM member m JOIN pg_proc p ON p.oid = m.objid WHERE m.classid = 'pg_proc'::regclass
), col AS MATERIALIZED (
    SELECT r.node, r.called, r.relkind, a.*, quote_ident(a.attname) AS column_called,
        (SELECT pg_get_expr(f.adbin, f.adrelid) FROM pg_attrdef f WHERE f.adrelid = a.attrelid AND f.adnum = a.attnum) AS expression
    FROM (SELECT node, called, oid, relkind FROM rel WHERE relkind = 'r'
        UNION ALL SELECT node, called, typrelid, 'c' FROM kind WHERE typtype = 'c') r
    JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
), con AS MATERIALIZED (
    SELECT k.*, rel.node AS owner, rel.called, rel.oid AS relation FROM rel JOIN pg_constraint k ON k.conrelid = rel.oid
    WHERE k.contype IN ('c', 'p', 'u', 'x', 'f', 'n')
), ind AS MATERIALIZED (
    SELECT x.*, rel.node AS owner, rel.called, i.relname,
        (SELECT k.oid FROM con k WHERE k.conindid = x.indexrelid AND k.contype IN ('p', 'u', 'x')) AS constraint_oid
    FROM rel JOIN pg_index x ON x.indrelid = rel.oid JOIN pg_class i ON i.oid = x.indexrelid
), seq AS MATERIALIZED (
    SELECT q.*, rel.relname, rel.node, rel.called, d.deptype, d.refobjid, d.refobjsubid,
        regexp_replace(query_to_xml(format('SELECT last_value FROM %I.%I WHERE NOT is_called', ns.nspname, rel.relname), false, true, '')::text,
            '.*<last_value>(-?\d+)<.*', '\1') AS last
    FROM ns, rel JOIN pg_sequence q ON q.seqrelid = rel.oid
    LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = rel.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
), trg AS MATERIALIZED (
    SELECT t.*, 'g' || t.oid AS node, rel.called, rel.node AS owner FROM rel JOIN pg_trigger t ON t.tgrelid = rel.oid WHERE NOT t.tgisinternal
), pol AS MATERIALIZED (
    SELECT y.*, 'p' || y.oid AS node, rel.called, rel.node AS owner FROM rel JOIN pg_policy y ON y.polrelid = rel.oid
), sta AS MATERIALIZED (
    SELECT x.*, 's' || x.oid AS node FROM member m JOIN pg_statistic_ext x ON x.oid = m.objid WHERE m.classid = 'pg_statistic_ext'::regclass
), part AS MATERIALIZED (
    -- Which node does an object belong to?
    SELECT 'pg_class'::regclass AS classid, oid AS objid, node FROM rel WHERE relkind IN ('r', 'v')
    UNION ALL SELECT 'pg_class'::regclass, seqrelid, node FROM seq WHERE deptype IS DISTINCT FROM 'i'
    UNION ALL SELECT 'pg_class'::regclass, seqrelid, 'r' || refobjid FROM seq WHERE deptype = 'i'
    UNION ALL SELECT 'pg_class'::regclass, indexrelid, CASE WHEN constraint_oid IS NULL THEN 'i' || indexrelid ELSE owner END FROM ind
    UNION ALL SELECT 'pg_class'::regclass, typrelid, node FROM kind WHERE typrelid <> 0
    UNION ALL SELECT 'pg_type'::regclass, t.oid, rel.node FROM rel JOIN pg_type t ON t.oid = rel.reltype
    UNION ALL SELECT 'pg_type'::regclass, t.typarray, rel.node FROM rel JOIN pg_type t ON t.oid = rel.reltype WHERE t.typarray <> 0
    UNION ALL SELECT 'pg_type'::regclass, oid, node FROM kind
    UNION ALL SELECT 'pg_type'::regclass, typarray, node FROM kind WHERE typarray <> 0
    UNION ALL SELECT 'pg_proc'::regclass, oid, node FROM proc
    UNION ALL SELECT 'pg_constraint'::regclass, oid, CASE contype WHEN 'f' THEN 'k' || oid ELSE owner END FROM con
    UNION ALL SELECT 'pg_constraint'::regclass, k.oid, kind.node FROM kind JOIN pg_constraint k ON k.contypid = kind.oid AND k.conrelid = 0
    UNION ALL SELECT 'pg_attrdef'::regclass, f.oid, rel.node FROM rel JOIN pg_attrdef f ON f.adrelid = rel.oid
    UNION ALL SELECT 'pg_rewrite'::regclass, w.oid, rel.node FROM rel JOIN pg_rewrite w ON w.ev_class = rel.oid
    UNION ALL SELECT 'pg_trigger'::regclass, oid, node FROM trg
    UNION ALL SELECT 'pg_policy'::regclass, oid, node FROM pol
    UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, node FROM sta
)
SELECT 'refuse' AS what, '' AS node, 0::int8 AS position, format('%I is of a kind that no template can hold', relname) AS text, '' AS other
FROM rel WHERE relkind NOT IN ('r', 'v', 'S') OR relispartition
UNION ALL
SELECT 'refuse', '', 0, format('%s is of a kind that no template can hold', pg_describe_object(classid, objid, 0)), '' FROM member
WHERE classid NOT IN ('pg_class'::regclass, 'pg_type'::regclass, 'pg_proc'::regclass, 'pg_statistic_ext'::regclass)
UNION ALL
-- What is copied out of a table of another schema may be copied differently next time.
SELECT 'refuse', '', 0, format('%s looks at %s, which may change', pg_describe_object(p.classid, p.objid, 0), pg_describe_object(d.refclassid, d.refobjid, 0)), ''
FROM part p JOIN pg_depend d ON d.classid = p.classid AND d.objid = p.objid AND d.refclassid = 'pg_class'::regclass
JOIN pg_class c ON c.oid = d.refobjid, ns
WHERE p.classid IN ('pg_rewrite'::regclass, 'pg_proc'::regclass, 'pg_policy'::regclass)
AND c.relnamespace <> ns.oid AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
UNION ALL
SELECT 'table', node, oid::int8, concat(CASE relpersistence WHEN 'u' THEN 'CREATE UNLOGGED TABLE ' ELSE 'CREATE TABLE ' END, called), ''
FROM rel WHERE relkind = 'r'
UNION ALL
SELECT 'end', rel.node, 0, concat_ws(' ', (SELECT 'USING ' || quote_ident(amname) FROM pg_am WHERE pg_am.oid = relam),
    (SELECT format('WITH (%s)', string_agg(format('%s=%L', split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)), ', '))
        FROM (SELECT unnest(reloptions) AS o UNION ALL SELECT 'toast.' || unnest(t.reloptions) FROM pg_class t WHERE t.oid = rel.reltoastrelid) o HAVING count(*) > 0),
    (SELECT 'TABLESPACE ' || quote_ident(spcname) FROM pg_tablespace s WHERE s.oid = reltablespace)), ''
FROM rel WHERE relkind = 'r'
UNION ALL
SELECT 'in-table', node, attnum, concat_ws(' ', column_called, format_type(atttypid, atttypmod),
    'COMPRESSION ' || CASE to_jsonb(col)->>'attcompression' WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END,
    (SELECT 'COLLATE ' || attcollation::regcollation FROM pg_type t WHERE t.oid = atttypid AND t.typcollation <> attcollation AND attcollation <> 0),
    CASE WHEN attgenerated::text = 's' THEN format('GENERATED ALWAYS AS (%s) STORED', expression)
        WHEN attgenerated::text = 'v' THEN format('GENERATED ALWAYS AS (%s) VIRTUAL', expression)
        WHEN expression IS NOT NULL THEN 'DEFAULT ' || expression
        WHEN attidentity::text <> '' THEN concat('GENERATED ', CASE attidentity::text WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END, ' AS IDENTITY',
            (SELECT format(' (SEQUENCE NAME %s START %s INCREMENT %s MINVALUE %s MAXVALUE %s CACHE %s%s)',
                seq.called, seqstart, seqincrement, seqmin, seqmax, seqcache, CASE WHEN seqcycle THEN ' CYCLE' END)
            FROM seq WHERE refobjid = attrelid AND refobjsubid = attnum AND seq.deptype = 'i' AND (
                seq.relname <> concat_ws('_', (SELECT relname FROM pg_class WHERE oid = attrelid), attname, 'seq')
                OR seqstart <> 1 OR seqincrement <> 1 OR seqmin <> 1 OR seqcache <> 1 OR seqcycle OR seqmax <> CASE seqtypid
                    WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647 ELSE 9223372036854775807 END))) END,
    CASE WHEN attnotnull THEN concat((SELECT format('CONSTRAINT %I ', k.conname) FROM con k
        WHERE k.relation = attrelid AND k.contype = 'n' AND k.conkey[1] = attnum), 'NOT NULL') END), ''
FROM col WHERE relkind = 'r'
UNION ALL
SELECT 'in-table', owner, 10000 + oid::int8, format('CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)), ''
FROM con WHERE contype IN ('c', 'p', 'u', 'x') AND convalidated
UNION ALL
SELECT 'key', 'k' || oid, oid::int8, format('CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)), owner
FROM con WHERE contype = 'f' AND convalidated
UNION ALL
SELECT 'create', 'k' || oid, oid::int8, format('ALTER TABLE %s ADD CONSTRAINT %I %s', called, conname, pg_get_constraintdef(oid)), ''
FROM con WHERE contype = 'f' AND NOT convalidated
UNION ALL
SELECT 'edge', 'k' || oid, 0, '', owner FROM con WHERE contype = 'f'
UNION ALL
SELECT 'after', owner, 20 + oid::int8, format('ALTER TABLE %s ADD CONSTRAINT %I %s', called, conname, pg_get_constraintdef(oid)), ''
FROM con WHERE contype = 'c' AND NOT convalidated
UNION ALL
SELECT 'after', node, attnum, format('ALTER TABLE %s ALTER COLUMN %s SET STORAGE %s', called, column_called,
    CASE attstorage::text WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'x' THEN 'EXTENDED' ELSE 'MAIN' END), ''
FROM col JOIN pg_type t ON t.oid = atttypid WHERE relkind = 'r' AND t.typstorage <> attstorage
UNION ALL
SELECT 'after', node, attnum, format('ALTER TABLE %s ALTER COLUMN %s SET STATISTICS %s', called, column_called, to_jsonb(col)->>'attstattarget'), ''
FROM col WHERE relkind = 'r' AND to_jsonb(col)->>'attstattarget' <> '-1'
UNION ALL
SELECT 'after', node, attnum, format('ALTER TABLE %s ALTER COLUMN %s SET (%s)', called, column_called, array_to_string(attoptions, ', ')), ''
FROM col WHERE relkind = 'r' AND attoptions IS NOT NULL
UNION ALL
SELECT 'last', node, 0, format('ALTER TABLE %s %s ROW LEVEL SECURITY', called, word), ''
FROM rel, (VALUES ('ENABLE', false), ('FORCE', true)) w (word, forced)
WHERE relkind = 'r' AND CASE WHEN forced THEN relforcerowsecurity ELSE relrowsecurity END
UNION ALL
SELECT 'last', node, 0, format('ALTER TABLE %s REPLICA IDENTITY %s', called, CASE relreplident::text WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING'
    ELSE (SELECT 'USING INDEX ' || quote_ident(ind.relname) FROM ind WHERE ind.owner = rel.node AND indisreplident) END), ''
FROM rel WHERE relkind = 'r' AND relreplident <> 'd'
UNION ALL
SELECT 'create', 'i' || indexrelid, indexrelid::int8, pg_get_indexdef(indexrelid, 0, true), '' FROM ind WHERE constraint_oid IS NULL
UNION ALL
SELECT 'last', owner, 0, format('ALTER TABLE %s CLUSTER ON %I', called, relname), '' FROM ind WHERE indisclustered
UNION ALL
SELECT 'create', node, seqrelid::int8, format('CREATE SEQUENCE %s AS %s INCREMENT %s MINVALUE %s MAXVALUE %s START %s CACHE %s%s',
    called, format_type(seqtypid, NULL), seqincrement, seqmin, seqmax, seqstart, seqcache, CASE WHEN seqcycle THEN ' CYCLE' END), ''
FROM seq WHERE deptype IS DISTINCT FROM 'i'
UNION ALL
SELECT 'last', seq.node, 0, format('ALTER SEQUENCE %s OWNED BY %I.%I', seq.called, t.relname, a.attname), ''
FROM seq JOIN rel t ON t.oid = refobjid JOIN pg_attribute a ON a.attrelid = refobjid AND a.attnum = refobjsubid WHERE deptype = 'a'
UNION ALL
SELECT 'last', node, 0, format('ALTER SEQUENCE %s RESTART WITH %s', called, last), '' FROM seq WHERE last <> '' AND last <> seqstart::text
UNION ALL
SELECT 'create', node, oid::int8, format('CREATE VIEW %s%s AS %s', called,
    (SELECT format(' WITH (%s)', string_agg(format('%s=%L', split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)), ', '))
        FROM unnest(reloptions) o HAVING count(*) > 0), rtrim(pg_get_viewdef(oid), ';')), ''
FROM rel WHERE relkind = 'v'
UNION ALL
SELECT 'create', proc.node, proc.oid::int8, CASE WHEN prokind IN ('f', 'p', 'w') THEN (SELECT concat('CREATE ', word, ' ', substr(def, strpos(def, word) + length(word) + 1 + length(ns.prefix)))
    FROM pg_get_functiondef(proc.oid) def, LATERAL (SELECT CASE prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END) w (word)) END, ''
FROM proc, ns
UNION ALL
SELECT 'create', node, oid::int8, CASE typtype::text
    WHEN 'e' THEN format('CREATE TYPE %s AS ENUM (%s)', called,
        (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = kind.oid))
    WHEN 'c' THEN format('CREATE TYPE %s AS (%s)', called, (SELECT string_agg(concat_ws(' ', column_called, format_type(atttypid, atttypmod),
        (SELECT 'COLLATE ' || attcollation::regcollation FROM pg_type t WHERE t.oid = atttypid AND t.typcollation <> attcollation AND attcollation <> 0)), ', ' ORDER BY attnum)
        FROM col WHERE col.node = kind.node))
    WHEN 'd' THEN concat_ws(' ', 'CREATE DOMAIN', called, 'AS', format_type(typbasetype, typtypmod),
        (SELECT 'COLLATE ' || kind.typcollation::regcollation FROM pg_type b WHERE b.oid = kind.typbasetype AND b.typcollation <> kind.typcollation AND kind.typcollation <> 0),
        'DEFAULT ' || pg_get_expr(typdefaultbin, 0), CASE WHEN typnotnull THEN 'NOT NULL' END,
        (SELECT string_agg(format('CONSTRAINT %I %s', k.conname, pg_get_constraintdef(k.oid)), ' ' ORDER BY k.oid)
            FROM pg_constraint k WHERE k.contypid = kind.oid AND k.conrelid = 0 AND k.contype = 'c')) END, ''
FROM kind
UNION ALL
SELECT 'create', node, oid::int8, concat(pg_get_triggerdef(oid, true), CASE WHEN tgenabled <> 'O' THEN format('; ALTER TABLE %s %s TRIGGER %I', called,
    CASE tgenabled::text WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END, tgname) END), ''
FROM trg
UNION ALL
SELECT 'create', node, oid::int8, concat_ws(' ', format('CREATE POLICY %I ON %s AS %s FOR %s TO', polname, called,
    CASE WHEN polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
    CASE polcmd::text WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END),
    (SELECT string_agg(CASE WHEN r = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ') FROM unnest(polroles) r),
    format('USING (%s)', pg_get_expr(polqual, polrelid)) , CASE WHEN polwithcheck IS NOT NULL THEN format('WITH CHECK (%s)', pg_get_expr(polwithcheck, polrelid)) END), ''
FROM pol WHERE polqual IS NOT NULL
UNION ALL
SELECT 'create', node, oid::int8, concat_ws(' ', format('CREATE POLICY %I ON %s AS %s FOR %s TO', polname, called,
    CASE WHEN polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END, CASE polcmd::text WHEN 'a' THEN 'INSERT' WHEN '*' THEN 'ALL' WHEN 'w' THEN 'UPDATE' ELSE 'SELECT' END),
    (SELECT string_agg(CASE WHEN r = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ') FROM unnest(polroles) r),
    CASE WHEN polwithcheck IS NOT NULL THEN format('WITH CHECK (%s)', pg_get_expr(polwithcheck, polrelid)) END), ''
FROM pol WHERE polqual IS NULL
UNION ALL
SELECT 'create', node, sta.oid::int8, concat('CREATE STATISTICS ', substr(pg_get_statisticsobjdef(sta.oid), length('CREATE STATISTICS ' || ns.prefix) + 1)), ''
FROM sta, ns
UNION ALL
SELECT 'last', '', d.objsubid, concat('COMMENT ON ', o.words, ' IS ', quote_literal(d.description)), ''
FROM (
    SELECT 'pg_class'::regclass AS classid, oid AS objid, 0 AS sub, concat(CASE relkind::text WHEN 'v' THEN 'VIEW ' WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END, called) AS words FROM rel
    UNION ALL SELECT 'pg_class'::regclass, attrelid, attnum::int, format('COLUMN %s.%s', called, column_called) FROM col
    UNION ALL SELECT 'pg_class'::regclass, a.attrelid, a.attnum::int, format('COLUMN %s.%I', called, attname) FROM rel JOIN pg_attribute a ON a.attrelid = rel.oid AND a.attnum > 0 WHERE rel.relkind = 'v'
    UNION ALL SELECT 'pg_class'::regclass, indexrelid, 0, format('INDEX %I', relname) FROM ind
    UNION ALL SELECT 'pg_constraint'::regclass, oid, 0, format('CONSTRAINT %I ON %s', conname, called) FROM con
    UNION ALL SELECT 'pg_constraint'::regclass, k.oid, 0, format('CONSTRAINT %I ON DOMAIN %s', k.conname, kind.called) FROM kind JOIN pg_constraint k ON k.contypid = kind.oid AND k.conrelid = 0
    UNION ALL SELECT 'pg_trigger'::regclass, oid, 0, format('TRIGGER %I ON %s', tgname, called) FROM trg
    UNION ALL SELECT 'pg_policy'::regclass, oid, 0, format('POLICY %I ON %s', polname, called) FROM pol
    UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, 0, format('STATISTICS %I', stxname) FROM sta
    UNION ALL SELECT 'pg_type'::regclass, oid, 0, concat(CASE typtype::text WHEN 'd' THEN 'DOMAIN ' ELSE 'TYPE ' END, called) FROM kind
    UNION ALL SELECT 'pg_proc'::regclass, oid, 0, format('%s %I(%s)', CASE prokind::text WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, proname, pg_get_function_identity_arguments(oid)) FROM proc
) o JOIN pg_description d ON d.objoid = o.objid AND d.classoid = o.classid AND d.objsubid = o.sub
UNION ALL
SELECT DISTINCT 'edge', a.node, 0::int8, '', b.node
FROM part a JOIN pg_depend d ON d.classid = a.classid AND d.objid = a.objid
JOIN part b ON b.classid = d.refclassid AND b.objid = d.refobjid
WHERE a.node <> b.node
-- A sequence is made before the table that owns it: the table's default needs it.
AND NOT (d.deptype = 'a' AND a.node IN (SELECT node FROM seq) AND d.refobjsubid <> 0)
