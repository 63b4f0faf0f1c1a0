-- Lists the statements of which the schema consists. Columns: what, node, position, text, other, more.
--
--   refuse      why the schema cannot be copied
--   unpredictable  why it cannot be copied to a schema that does not exist yet
--   create      a complete statement that creates the node
--   table       the start of CREATE TABLE, and its name; `end` holds the part after the parentheses
--   in-table    a column within the parentheses
--   key         a constraint: a node of its own, written into its table (`other`) where
--               possible, otherwise after the text in `more`
--   after       a statement right after the node
--   refresh     a statement that fills the node after the rows are loaded
--   last        a statement after all others
--   owner       statements of an exact copy, after the last
--   schema      the same, with the schema's name between `text` and `other`
--   restart     the position of a sequence; an exact copy gets it from the dump instead
--   edge        the node depends on the other node
--   mention     an object (`other`) whose text contains the name of the schema
--
-- The first letter of a node is its kind: r relation, a column that follows its table, t type, f function, l collation, c check; and of those
-- created after the rows: k other constraint, i index, g trigger, p policy, s statistics, w rule.
-- Omits the history table. Run through relative_to.sql.
WITH RECURSIVE ns AS (
    SELECT oid, nspname, quote_ident(nspname) || '.' AS prefix FROM pg_namespace WHERE nspname = {schema}
), member AS MATERIALIZED (
    SELECT d.classid, d.objid FROM ns
    JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = ns.oid
), rel AS MATERIALIZED (
    SELECT c.*, 'r' || c.oid AS node, quote_ident(c.relname) AS called,
        -- As pg_dump does it: a table of its own first, so that nothing of the parent is copied into it.
        CASE WHEN relispartition THEN 'ATTACH PARTITION' WHEN EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid)
            AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attinhcount > 0 AND NOT a.attislocal AND NOT EXISTS (
                SELECT FROM pg_attribute b WHERE b.attrelid = c.oid AND b.attnum BETWEEN 1 AND a.attnum AND b.attinhcount = 0 AND NOT b.attisdropped)) THEN 'INHERIT' END AS joins
    FROM member m JOIN pg_class c ON c.oid = m.objid WHERE m.classid = 'pg_class'::regclass AND c.relname <> {history}
), tree AS (
    -- The tables that are partitions of a partitioned table, directly or not.
    SELECT oid AS root, oid AS leaf, 0 AS depth FROM rel WHERE relkind = 'p'
    UNION ALL SELECT root, h.inhrelid, depth + 1 FROM tree JOIN pg_inherits h ON h.inhparent = leaf
), kind AS MATERIALIZED (
    SELECT t.*, 't' || t.oid AS node, quote_ident(t.typname) AS called FROM member m JOIN pg_type t ON t.oid = m.objid
    WHERE m.classid = 'pg_type'::regclass AND t.typtype::text <> 'm' AND NOT EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'i' AND d.refclassid = 'pg_type'::regclass)
), proc AS MATERIALIZED (
    -- Without the functions that a range type creates.
    SELECT p.*, 'f' || p.oid AS node, CASE WHEN p.prokind = 'a' AND p.pronargs = 0 THEN '*' ELSE pg_get_function_identity_arguments(p.oid) END AS arguments,
        CASE p.prokind::text WHEN 'p' THEN 'PROCEDURE' WHEN 'a' THEN 'AGGREGATE' ELSE 'FUNCTION' END AS word
    FROM member m JOIN pg_proc p ON p.oid = m.objid WHERE m.classid = 'pg_proc'::regclass AND NOT EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'i' AND d.refclassid = 'pg_type'::regclass)
), own_path AS MATERIALIZED (
{own_path}), lang AS MATERIALIZED (
    SELECT l.*, 'l' || l.oid AS node, quote_ident(l.collname) AS called FROM member m JOIN pg_collation l ON l.oid = m.objid WHERE m.classid = 'pg_collation'::regclass
), att AS MATERIALIZED (
    SELECT r.node, r.called, r.relkind, a.attislocal OR r.partition AS own, a.*, quote_ident(a.attname) AS column_called,
        (SELECT pg_get_expr(f.adbin, f.adrelid) FROM pg_attrdef f WHERE f.adrelid = a.attrelid AND f.adnum = a.attnum) AS expression
    FROM (SELECT node, called, oid, relkind, relispartition AS partition FROM rel WHERE relkind IN ('r', 'p', 'v', 'm')
        UNION ALL SELECT node, called, typrelid, 'c', false FROM kind WHERE typtype = 'c') r
    JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
), late AS (
    -- Columns that a parent got after its children had columns of their own, and all that follow them.
    SELECT attrelid, attnum FROM att WHERE NOT own AND relkind = 'r' AND EXISTS (SELECT FROM att a WHERE a.attrelid = att.attrelid AND a.attnum < att.attnum AND a.attinhcount = 0)
    UNION SELECT c.attrelid, c.attnum FROM late JOIN att k ON k.attrelid = late.attrelid AND k.attnum = late.attnum
    JOIN att c ON c.attrelid = k.attrelid AND c.attnum > k.attnum OR c.attname = k.attname AND EXISTS (SELECT FROM pg_inherits
        WHERE inhrelid = k.attrelid AND inhparent = c.attrelid AND NOT k.own OR inhparent = k.attrelid AND inhrelid = c.attrelid AND NOT c.own)
), added AS (
    -- Where these appear.
    SELECT 'a' || attrelid || '_' || attnum AS node, attrelid, attnum, attname, own FROM att WHERE own AND (attrelid, attnum) IN (SELECT attrelid, attnum FROM late)
    UNION ALL SELECT added.node, c.attrelid, c.attnum, c.attname, false FROM added JOIN pg_inherits ON inhparent = added.attrelid
    JOIN att c ON c.attrelid = inhrelid AND c.attname = added.attname AND NOT c.own
), col AS MATERIALIZED (
    SELECT att.*, coalesce(added.node, att.node) AS home, att.own AND added.node IS NOT NULL AS is_late
    FROM att LEFT JOIN added ON added.attrelid = att.attrelid AND added.attnum = att.attnum
), con AS MATERIALIZED (
    SELECT k.*, CASE WHEN k.contype IN ('c', 'n') AND k.convalidated THEN 'c' ELSE 'k' END || k.oid AS node, rel.node AS owner, rel.called, rel.oid AS relation,
        k.conislocal OR k.coninhcount = 0 OR rel.relispartition AND (k.contype = 'n' OR k.contype = 'c' AND k.convalidated) AS own, rel.relkind,
        -- To be created after the children that inherited it when it was added.
        k.contype = 'n' AND EXISTS (SELECT FROM rel r JOIN pg_constraint c ON c.conrelid = r.oid WHERE r.joins = 'INHERIT' AND c.contype = 'n' AND NOT c.conislocal AND c.conname = k.conname) AS late
    FROM rel JOIN pg_constraint k ON k.conrelid = rel.oid
    WHERE k.contype IN ('c', 'p', 'u', 'x', 'f', 'n')
), ind AS MATERIALIZED (
    SELECT x.*, rel.node AS owner, rel.called, i.relname, i.relkind, i.reltablespace, i.reloptions,
        (SELECT h.inhparent::regclass::text FROM pg_inherits h WHERE h.inhrelid = x.indexrelid) AS parent,
        (SELECT k.oid FROM con k WHERE k.conindid = x.indexrelid AND k.contype IN ('p', 'u', 'x')) AS constraint_oid
    FROM rel JOIN pg_index x ON x.indrelid = rel.oid JOIN pg_class i ON i.oid = x.indexrelid
), seq AS MATERIALIZED (
    SELECT q.*, rel.relname, rel.relpersistence, rel.node, rel.called, d.deptype, d.refobjid, d.refobjsubid,
        regexp_replace(query_to_xml(format('SELECT last_value, is_called FROM %I.%I', ns.nspname, rel.relname), false, true, '')::text,
            '.*<last_value>(.*)</last_value>.*<is_called>(.*)</is_called>.*', '\1, \2') AS state
    FROM ns, rel JOIN pg_sequence q ON q.seqrelid = rel.oid
    LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = rel.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
), trg AS MATERIALIZED (
    SELECT t.*, 'g' || t.oid AS node, rel.called, rel.node AS owner FROM rel JOIN pg_trigger t ON t.tgrelid = rel.oid
    WHERE NOT t.tgisinternal AND t.tgparentid = 0
), rul AS MATERIALIZED (
    SELECT w.*, 'w' || w.oid AS node, rel.called, rel.node AS owner FROM rel JOIN pg_rewrite w ON w.ev_class = rel.oid
    WHERE rel.relkind NOT IN ('v', 'm') OR w.rulename <> '_RETURN'
), pol AS MATERIALIZED (
    SELECT y.*, 'p' || y.oid AS node, rel.called, rel.node AS owner FROM rel JOIN pg_policy y ON y.polrelid = rel.oid
), sta AS MATERIALIZED (
    SELECT x.*, 's' || x.oid AS node FROM member m JOIN pg_statistic_ext x ON x.oid = m.objid WHERE m.classid = 'pg_statistic_ext'::regclass
), part AS MATERIALIZED (
    -- The node of each object.
    SELECT 'pg_class'::regclass AS classid, oid AS objid, node FROM rel WHERE relkind IN ('r', 'p', 'v', 'm')
    UNION ALL SELECT 'pg_class'::regclass, seqrelid, node FROM seq WHERE deptype IS DISTINCT FROM 'i'
    UNION ALL SELECT 'pg_class'::regclass, seqrelid, 'r' || refobjid FROM seq WHERE deptype = 'i'
    UNION ALL SELECT 'pg_class'::regclass, indexrelid, coalesce('k' || constraint_oid, 'i' || indexrelid) FROM ind
    UNION ALL SELECT 'pg_class'::regclass, typrelid, node FROM kind WHERE typrelid <> 0
    UNION ALL SELECT 'pg_type'::regclass, t.oid, rel.node FROM rel JOIN pg_type t ON t.oid = rel.reltype
    UNION ALL SELECT 'pg_type'::regclass, t.typarray, rel.node FROM rel JOIN pg_type t ON t.oid = rel.reltype WHERE t.typarray <> 0
    UNION ALL SELECT 'pg_type'::regclass, oid, node FROM kind
    UNION ALL SELECT 'pg_type'::regclass, typarray, node FROM kind WHERE typarray <> 0
    UNION ALL SELECT 'pg_proc'::regclass, oid, node FROM proc
    UNION ALL SELECT 'pg_proc'::regclass, d.objid, kind.node FROM kind JOIN pg_depend d ON d.refclassid = 'pg_type'::regclass AND d.refobjid = kind.oid
        AND d.classid = 'pg_proc'::regclass AND d.deptype = 'i'
    UNION ALL SELECT 'pg_type'::regclass, d.objid, kind.node FROM kind JOIN pg_depend d ON d.refclassid = 'pg_type'::regclass AND d.refobjid = kind.oid
        AND d.classid = 'pg_type'::regclass AND d.deptype = 'i' WHERE kind.typtype = 'r'
    UNION ALL SELECT 'pg_collation'::regclass, oid, node FROM lang
    UNION ALL SELECT 'pg_constraint'::regclass, oid, CASE contype WHEN 'n' THEN owner ELSE node END FROM con WHERE own OR contype IN ('p', 'u', 'x')
    UNION ALL SELECT 'pg_constraint'::regclass, k.oid, kind.node FROM kind JOIN pg_constraint k ON k.contypid = kind.oid AND k.conrelid = 0
    UNION ALL SELECT 'pg_attrdef'::regclass, f.oid, rel.node FROM rel JOIN pg_attrdef f ON f.adrelid = rel.oid
    UNION ALL SELECT 'pg_rewrite'::regclass, w.oid, coalesce((SELECT rul.node FROM rul WHERE rul.oid = w.oid), rel.node)
        FROM rel JOIN pg_rewrite w ON w.ev_class = rel.oid
    UNION ALL SELECT 'pg_trigger'::regclass, oid, node FROM trg
    UNION ALL SELECT 'pg_policy'::regclass, oid, node FROM pol
    UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, node FROM sta
), thing AS MATERIALIZED (
    -- Objects with an owner, privileges or a comment.
    SELECT 'pg_class'::regclass AS classid, oid AS objid, 0 AS sub, node, concat(CASE relkind::text WHEN 'v' THEN 'VIEW ' WHEN 'm' THEN 'MATERIALIZED VIEW '
        WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END, called) AS words, concat(CASE relkind::text WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END, called) AS grants,
        CASE WHEN oid NOT IN (SELECT seqrelid FROM seq WHERE deptype IS NOT NULL) THEN relowner END AS owner, relowner AS grantor, relacl AS acl, '' AS col FROM rel
    UNION ALL SELECT 'pg_class'::regclass, attrelid, attnum::int, node, format('COLUMN %s.%s', called, column_called), 'TABLE ' || called,
        NULL, (SELECT relowner FROM rel WHERE rel.oid = attrelid), attacl, format(' (%s)', column_called) FROM col
    UNION ALL SELECT 'pg_class'::regclass, indexrelid, 0, owner, format('INDEX %I', relname), NULL, NULL, NULL, NULL, '' FROM ind
    UNION ALL SELECT 'pg_constraint'::regclass, oid, 0, owner, format('CONSTRAINT %I ON %s', conname, called), NULL, NULL, NULL, NULL, '' FROM con
    UNION ALL SELECT 'pg_constraint'::regclass, k.oid, 0, kind.node, format('CONSTRAINT %I ON DOMAIN %s', k.conname, kind.called), NULL, NULL, NULL, NULL, ''
        FROM kind JOIN pg_constraint k ON k.contypid = kind.oid AND k.conrelid = 0
    UNION ALL SELECT 'pg_trigger'::regclass, oid, 0, node, format('TRIGGER %I ON %s', tgname, called), NULL, NULL, NULL, NULL, '' FROM trg
    UNION ALL SELECT 'pg_rewrite'::regclass, oid, 0, node, format('RULE %I ON %s', rulename, called), NULL, NULL, NULL, NULL, '' FROM rul
    UNION ALL SELECT 'pg_policy'::regclass, oid, 0, node, format('POLICY %I ON %s', polname, called), NULL, NULL, NULL, NULL, '' FROM pol
    UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, 0, node, format('STATISTICS %I', stxname), NULL, stxowner, NULL, NULL, '' FROM sta
    UNION ALL SELECT 'pg_collation'::regclass, oid, 0, node, 'COLLATION ' || called, NULL, collowner, NULL, NULL, '' FROM lang
    UNION ALL SELECT 'pg_type'::regclass, oid, 0, node, concat(CASE typtype::text WHEN 'd' THEN 'DOMAIN ' ELSE 'TYPE ' END, called), 'TYPE ' || called,
        typowner, typowner, typacl, '' FROM kind
    UNION ALL SELECT 'pg_proc'::regclass, oid, 0, node, format('%s %I(%s)', word, proname, arguments),
        format('%s %I(%s)', CASE word WHEN 'PROCEDURE' THEN word ELSE 'FUNCTION' END, proname, CASE arguments WHEN '*' THEN '' ELSE arguments END), proowner, proowner, proacl, '' FROM proc
)
-- Values copied from a table of another schema may differ next time.
SELECT 'unpredictable' AS what, '' AS node, 0::int8 AS position, format('%s looks at %s, which may change', replace(pg_describe_object(p.classid, p.objid, 0), 'rule _RETURN on ', ''),
    pg_describe_object(d.refclassid, d.refobjid, 0)) AS text, '' AS other, '' AS more
FROM part p JOIN pg_depend d ON d.classid = p.classid AND d.objid = p.objid AND d.refclassid = 'pg_class'::regclass
JOIN pg_class c ON c.oid = d.refobjid, ns
WHERE p.classid IN ('pg_rewrite'::regclass, 'pg_proc'::regclass, 'pg_policy'::regclass)
AND c.relnamespace <> ns.oid AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
UNION ALL
SELECT 'refuse', '', 0, CASE WHEN relkind = 'f' THEN 'foreign table ' || called ELSE format('table %s of a composite type', called) END, '', ''
FROM rel WHERE relkind NOT IN ('r', 'p', 'v', 'm', 'S') OR reloftype <> 0
UNION ALL
SELECT 'refuse', '', 0, CASE typtype::text WHEN 'b' THEN 'base type ' ELSE 'unfinished type ' END || called, '', '' FROM kind WHERE typtype IN ('b', 'p')
UNION ALL
SELECT 'refuse', '', 0, format('range type %s with a canonical function', called), '', ''
FROM kind JOIN pg_range g ON g.rngtypid = kind.oid WHERE g.rngcanonical <> 0
UNION ALL
SELECT 'refuse', '', 0, format('%s %I(%s) of a kind of its own', lower(word), proname, arguments), '', ''
FROM proc JOIN pg_aggregate g ON g.aggfnoid = proc.oid WHERE g.aggkind <> 'n' OR g.aggmtransfn <> 0
UNION ALL
SELECT 'refuse', '', 0, pg_describe_object(classid, objid, 0), '', '' FROM member
WHERE classid NOT IN ('pg_class'::regclass, 'pg_type'::regclass, 'pg_proc'::regclass, 'pg_statistic_ext'::regclass, 'pg_collation'::regclass, 'pg_default_acl'::regclass)
UNION ALL
-- Objects that depend on the schema but are in no schema.
SELECT DISTINCT 'refuse', '', 0, pg_describe_object(d.classid, d.objid, 0), '', '' FROM pg_depend d
JOIN member m ON m.classid = d.refclassid AND m.objid = d.refobjid
WHERE d.classid IN ('pg_cast'::regclass, 'pg_transform'::regclass, 'pg_event_trigger'::regclass) AND d.deptype = 'n'
UNION ALL
SELECT 'refuse', '', 0, format('index %I, which is not valid', relname), '', '' FROM ind WHERE NOT indisvalid AND relkind <> 'I'
UNION ALL
SELECT 'refuse', '', 0, format('table %s, which is in publication %I', called, p.pubname), '', ''
FROM rel JOIN pg_publication_rel r ON r.prrelid = rel.oid JOIN pg_publication p ON p.oid = r.prpubid
UNION ALL
SELECT 'refuse', '', 0, format('%s, on which %s granted privileges', words, pg_get_userbyid(x.grantor)), '', ''
FROM thing, aclexplode(acl) x WHERE x.grantor <> thing.grantor
UNION ALL
SELECT 'refuse', '', 0, 'a security label on ' || words, '', '' FROM thing JOIN pg_seclabel l ON l.objoid = objid AND l.classoid = classid AND l.objsubid = sub
UNION ALL
SELECT 'table', node, oid::int8, concat(CASE relpersistence WHEN 'u' THEN 'CREATE UNLOGGED TABLE ' ELSE 'CREATE TABLE ' END, called), called, ''
FROM rel WHERE relkind IN ('r', 'p')
UNION ALL
SELECT 'after', node, -10000 + inhseqno, concat_ws(' ', 'ALTER TABLE ONLY', CASE WHEN relispartition THEN concat_ws(' ', inhparent::regclass, joins, called, pg_get_expr(relpartbound, oid))
    ELSE concat_ws(' ', called, joins, inhparent::regclass) END), '', ''
FROM rel JOIN pg_inherits ON inhrelid = oid WHERE relkind IN ('r', 'p') AND joins IS NOT NULL
UNION ALL
SELECT 'after', home, 100 + attnum, format('ALTER TABLE ONLY %s ALTER COLUMN %s SET DEFAULT %s', called, column_called, expression), '', ''
FROM col WHERE expression IS NOT NULL AND attgenerated::text = '' AND (relkind = 'v' OR NOT own)
UNION ALL
SELECT DISTINCT 'after', home, col.attnum::int8, concat_ws(' ', 'ALTER TABLE ONLY', called, 'ALTER COLUMN', column_called, change), '', ''
FROM col JOIN pg_inherits ON inhrelid = attrelid JOIN pg_attribute p ON p.attrelid = inhparent AND p.attname = col.attname,
LATERAL (VALUES ('DROP DEFAULT', expression IS NULL AND p.atthasdef), ('SET NOT NULL', col.attnotnull AND NOT p.attnotnull AND NOT EXISTS (
        SELECT FROM con WHERE relation = col.attrelid AND contype = 'n' AND conkey[1] = col.attnum)),
    ('SET STORAGE ' || CASE col.attstorage::text WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'x' THEN 'EXTENDED' ELSE 'MAIN' END, p.attstorage <> col.attstorage),
    ('SET COMPRESSION ' || CASE to_jsonb(col)->>'attcompression' WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' ELSE 'DEFAULT' END,
        to_jsonb(p)->>'attcompression' <> to_jsonb(col)->>'attcompression')) c (change, differs)
WHERE NOT own AND (col.attgenerated::text = '' OR change <> 'DROP DEFAULT') AND differs
UNION ALL
SELECT 'after', home, -20000, format('ALTER TABLE ONLY %s ADD CONSTRAINT %I %s', con.called, conname, pg_get_constraintdef(con.oid)), '', ''
FROM con JOIN col ON attrelid = relation AND attnum = conkey[1]
WHERE contype = 'n' AND NOT late AND (NOT convalidated AND con.own OR NOT col.own AND coninhcount = 0)
UNION ALL
SELECT 'end', rel.node, 0, concat_ws(' ',
    CASE WHEN joins IS NULL THEN (SELECT format('INHERITS (%s)', string_agg(inhparent::regclass::text, ', ' ORDER BY inhseqno)) FROM pg_inherits WHERE inhrelid = rel.oid HAVING count(*) > 0) END,
    CASE WHEN relkind = 'p' THEN 'PARTITION BY ' || pg_get_partkeydef(oid) END,
    (SELECT 'USING ' || quote_ident(amname) FROM pg_am WHERE pg_am.oid = relam),
    (SELECT format('WITH (%s)', string_agg(format('%s=%L', split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)), ', '))
        FROM (SELECT unnest(reloptions) AS o UNION ALL SELECT 'toast.' || unnest(t.reloptions) FROM pg_class t WHERE t.oid = rel.reltoastrelid) o HAVING count(*) > 0),
    (SELECT 'TABLESPACE ' || quote_ident(spcname) FROM pg_tablespace s WHERE s.oid = reltablespace)), '', ''
FROM rel WHERE relkind IN ('r', 'p')
UNION ALL
SELECT CASE WHEN is_late THEN 'create' ELSE 'in-table' END, home, attnum, concat_ws(' ', CASE WHEN is_late THEN format('ALTER TABLE %s ADD', called) END, column_called, format_type(atttypid, atttypmod),
    'COMPRESSION ' || CASE to_jsonb(col)->>'attcompression' WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END,
    (SELECT 'COLLATE ' || attcollation::regcollation FROM pg_type t WHERE t.oid = atttypid AND t.typcollation <> attcollation AND attcollation <> 0),
    CASE WHEN attgenerated::text = 's' THEN format('GENERATED ALWAYS AS (%s) STORED', expression)
        WHEN attgenerated::text = 'v' THEN format('GENERATED ALWAYS AS (%s) VIRTUAL', expression)
        WHEN expression IS NOT NULL THEN 'DEFAULT ' || expression
        -- A partition uses the sequence of the partitioned table.
        WHEN EXISTS (SELECT FROM seq WHERE refobjid = attrelid AND refobjsubid = attnum AND seq.deptype = 'i') THEN concat('GENERATED ', CASE attidentity::text WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END, ' AS IDENTITY',
            (SELECT format(' (SEQUENCE NAME %s START %s INCREMENT %s MINVALUE %s MAXVALUE %s CACHE %s%s)',
                seq.called, seqstart, seqincrement, seqmin, seqmax, seqcache, CASE WHEN seqcycle THEN ' CYCLE' END)
            FROM seq WHERE refobjid = attrelid AND refobjsubid = attnum AND seq.deptype = 'i' AND (
                seq.relname <> concat_ws('_', (SELECT relname FROM pg_class WHERE oid = attrelid), attname, 'seq')
                OR seqstart <> 1 OR seqincrement <> 1 OR seqmin <> 1 OR seqcache <> 1 OR seqcycle OR seqmax <> CASE seqtypid
                    WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647 ELSE 9223372036854775807 END))) END,
    CASE WHEN attnotnull THEN coalesce((SELECT CASE WHEN k.convalidated AND k.own AND NOT k.late THEN format('CONSTRAINT %I NOT NULL%s', k.conname, CASE WHEN connoinherit THEN ' NO INHERIT' END) ELSE '' END
        FROM con k WHERE k.relation = attrelid AND k.contype = 'n' AND k.conkey[1] = attnum), 'NOT NULL') END), '', ''
FROM col WHERE relkind IN ('r', 'p') AND own
UNION ALL
-- Objects on which other tables depend come before objects that depend on other tables.
SELECT 'key', node, oid::int8 + CASE contype WHEN 'f' THEN 10000000000 ELSE 0 END, format('CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)), owner,
    format('ALTER TABLE %s ADD ', called)
FROM con WHERE (contype = 'c' OR relkind = 'r') AND contype <> 'n' AND convalidated AND conparentid = 0 AND own
UNION ALL
-- A key of a partitioned table follows its partitions, whose own keys are attached to it.
SELECT 'create', node, oid::int8, format('ALTER TABLE ONLY %s ADD CONSTRAINT %I %s', called, conname, pg_get_constraintdef(oid)), '', ''
FROM con WHERE contype IN ('p', 'u', 'x') AND (relkind = 'p' OR conparentid <> 0)
UNION ALL
-- A foreign key of a partition that has another name than that of the partitioned table is merged with it.
SELECT 'create', node, oid::int8 + 10000000000, concat((SELECT string_agg(format('ALTER TABLE %s ADD CONSTRAINT %I %s; ', k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid)), '' ORDER BY depth DESC)
        FROM tree JOIN pg_constraint k ON k.conrelid = leaf JOIN pg_constraint p ON p.oid = k.conparentid
        WHERE root = con.relation AND k.contype = 'f' AND p.conrelid <> k.conrelid AND p.conname <> k.conname AND pg_get_constraintdef(k.oid) = pg_get_constraintdef(con.oid)),
    format('ALTER TABLE %s ADD CONSTRAINT %I %s', called, conname, pg_get_constraintdef(oid))), '', ''
FROM con WHERE (late OR contype IN ('c', 'f') AND NOT (convalidated AND (contype = 'c' OR relkind = 'r'))) AND conparentid = 0 AND own
UNION ALL
SELECT 'after', coalesce('k' || constraint_oid, 'i' || indexrelid), 2, format('ALTER INDEX %s ATTACH PARTITION %I', parent, relname), '', '' FROM ind WHERE parent IS NOT NULL
UNION ALL
SELECT 'edge', x.node, 0, '', 'r' || leaf, ''
FROM tree JOIN (SELECT owner, node FROM con WHERE contype IN ('p', 'u', 'x', 'f') UNION ALL SELECT owner, node FROM trg
    UNION ALL SELECT owner, 'i' || indexrelid FROM ind WHERE constraint_oid IS NULL) x ON x.owner = 'r' || root
UNION ALL
SELECT 'edge', node, 0, '', 'r' || attrelid, '' FROM added
UNION ALL
SELECT 'edge', b.node, 0, '', a.node, '' FROM added a JOIN added b ON b.attrelid = a.attrelid AND b.attnum > a.attnum
UNION ALL
SELECT 'edge', p.node, 0, '', added.node, '' FROM part p JOIN pg_depend d ON d.classid = p.classid AND d.objid = p.objid AND d.refclassid = 'pg_class'::regclass
JOIN added ON added.attrelid = d.refobjid AND added.attnum = d.refobjsubid
WHERE p.node NOT IN (SELECT node FROM rel WHERE relkind IN ('r', 'p', 'S'))
UNION ALL
-- A parent's constraint that was added later is created in its children with it.
SELECT 'edge', p.node, 0, '', k.owner, '' FROM con k JOIN rel ON rel.oid = k.relation JOIN con p ON p.conname = k.conname AND p.contype = k.contype AND p.own
WHERE k.contype IN ('c', 'n') AND NOT k.own AND rel.joins = 'INHERIT'
UNION ALL
SELECT 'edge', node, 0, '', owner, '' FROM con WHERE contype <> 'n' OR late
UNION ALL
SELECT 'after', home, attnum, format('ALTER TABLE ONLY %s ALTER COLUMN %s SET STORAGE %s', called, column_called,
    CASE attstorage::text WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'x' THEN 'EXTENDED' ELSE 'MAIN' END), '', ''
FROM col JOIN pg_type t ON t.oid = atttypid WHERE relkind IN ('r', 'p', 'm') AND t.typstorage <> attstorage
UNION ALL
SELECT 'after', home, attnum, format('ALTER TABLE ONLY %s ALTER COLUMN %s SET STATISTICS %s', called, column_called, to_jsonb(col)->>'attstattarget'), '', ''
FROM col WHERE relkind IN ('r', 'p', 'm') AND to_jsonb(col)->>'attstattarget' <> '-1'
UNION ALL
SELECT 'after', home, attnum, format('ALTER TABLE ONLY %s ALTER COLUMN %s SET (%s)', called, column_called, options), '', ''
-- Some server versions count a column's versions there.
FROM col, LATERAL (SELECT string_agg(o, ', ') AS options FROM unnest(attoptions) o WHERE NOT starts_with(o, 'pg_attver=')) o
WHERE relkind IN ('r', 'p', 'm') AND options IS NOT NULL
UNION ALL
SELECT 'last', node, 0, format('ALTER TABLE %s %s ROW LEVEL SECURITY', called, word), '', ''
FROM rel, (VALUES ('ENABLE', false), ('FORCE', true)) w (word, forced)
WHERE relkind IN ('r', 'p') AND CASE WHEN forced THEN relforcerowsecurity ELSE relrowsecurity END
UNION ALL
SELECT 'last', node, 0, format('ALTER TABLE %s REPLICA IDENTITY %s', called, CASE relreplident::text WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING'
    ELSE (SELECT 'USING INDEX ' || quote_ident(ind.relname) FROM ind WHERE ind.owner = rel.node AND indisreplident) END), '', ''
FROM rel WHERE relkind IN ('r', 'p') AND relreplident <> 'd'
UNION ALL
SELECT 'create', 'i' || indexrelid, indexrelid::int8, pg_get_indexdef(indexrelid, 0, true), '', '' FROM ind WHERE constraint_oid IS NULL
UNION ALL
SELECT 'after', coalesce('k' || constraint_oid, 'i' || indexrelid), 10 + a.attnum, format('ALTER INDEX %I ALTER COLUMN %s SET STATISTICS %s', relname, a.attnum, to_jsonb(a)->>'attstattarget'), '', ''
FROM ind JOIN pg_attribute a ON a.attrelid = indexrelid AND a.attnum > 0 WHERE to_jsonb(a)->>'attstattarget' <> '-1'
UNION ALL
SELECT 'after', coalesce('k' || constraint_oid, 'i' || indexrelid), 1, format('ALTER INDEX %I SET TABLESPACE %I', relname, spcname), '', ''
FROM ind JOIN pg_tablespace s ON s.oid = reltablespace
UNION ALL
-- The constraint does not show every setting of its index.
SELECT 'after', 'k' || constraint_oid, 3, format('ALTER INDEX %I SET (%s)', relname, options), '', ''
FROM ind, LATERAL (SELECT string_agg(format('%s=%L', split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)), ', ') AS options FROM unnest(reloptions) o) o
WHERE constraint_oid IS NOT NULL AND options IS NOT NULL
UNION ALL
SELECT 'last', owner, 0, format('ALTER TABLE %s CLUSTER ON %I', called, relname), '', '' FROM ind WHERE indisclustered
UNION ALL
SELECT 'create', seq.node, seqrelid::int8, format('CREATE %sSEQUENCE %s AS %s INCREMENT %s MINVALUE %s MAXVALUE %s START %s CACHE %s%s',
    CASE WHEN seq.relpersistence = 'u' THEN 'UNLOGGED ' END, called, format_type(seqtypid, NULL), seqincrement, seqmin, seqmax, seqstart, seqcache, CASE WHEN seqcycle THEN ' CYCLE' END), '', ''
FROM seq WHERE deptype IS DISTINCT FROM 'i'
UNION ALL
SELECT 'last', seq.node, 0, format('ALTER SEQUENCE %s OWNED BY %I.%I', seq.called, t.relname, a.attname), '', ''
FROM seq JOIN rel t ON t.oid = refobjid JOIN pg_attribute a ON a.attrelid = refobjid AND a.attnum = refobjsubid WHERE deptype = 'a'
UNION ALL
SELECT 'restart', node, 0, format('SELECT pg_catalog.setval(%L, %s)', called, state), '', '' FROM seq WHERE state <> seqstart || ', false'
UNION ALL
SELECT 'create', node, oid::int8, format('CREATE VIEW %s%s AS %s', called,
    (SELECT format(' WITH (%s)', string_agg(format('%s=%L', split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)), ', '))
        FROM unnest(reloptions) o HAVING count(*) > 0), rtrim(pg_get_viewdef(oid), ';')), '', ''
FROM rel WHERE relkind = 'v'
UNION ALL
SELECT 'create', node, oid::int8, format('CREATE MATERIALIZED VIEW %s AS %s WITH NO DATA', concat_ws(' ', called, (SELECT 'USING ' || quote_ident(amname) FROM pg_am WHERE pg_am.oid = relam),
    (SELECT format('WITH (%s)', string_agg(format('%s=%L', split_part(o, '=', 1), substr(o, strpos(o, '=') + 1)), ', '))
        FROM (SELECT unnest(reloptions) AS o UNION ALL SELECT 'toast.' || unnest(t.reloptions) FROM pg_class t WHERE t.oid = rel.reltoastrelid) o HAVING count(*) > 0),
    (SELECT 'TABLESPACE ' || quote_ident(spcname) FROM pg_tablespace s WHERE s.oid = reltablespace)), rtrim(pg_get_viewdef(oid), ';')), '', ''
FROM rel WHERE relkind = 'm'
UNION ALL
SELECT 'refresh', node, 0, 'REFRESH MATERIALIZED VIEW ' || called, '', '' FROM rel WHERE relkind = 'm' AND relispopulated
UNION ALL
SELECT 'create', node, oid::int8, concat(pg_get_ruledef(oid, true), CASE WHEN ev_enabled <> 'O' THEN format(' ALTER TABLE %s %s RULE %I', called,
    CASE ev_enabled::text WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END, rulename) END), '', ''
FROM rul
UNION ALL
SELECT 'create', node, oid::int8, format('CREATE COLLATION %s (PROVIDER = %s, %s DETERMINISTIC = %s%s)', called,
    CASE collprovider::text WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END,
    CASE WHEN collprovider = 'c' THEN format('LC_COLLATE = %L, LC_CTYPE = %L,', collcollate, collctype)
        ELSE format('LOCALE = %L,', coalesce(to_jsonb(lang)->>'colllocale', to_jsonb(lang)->>'colliculocale', collcollate)) END,
    CASE WHEN collisdeterministic THEN 'true' ELSE 'false' END, ', RULES = ' || quote_literal(to_jsonb(lang)->>'collicurules')), '', ''
FROM lang
UNION ALL
SELECT 'create', proc.node, proc.oid::int8, CASE WHEN prokind IN ('f', 'p', 'w') THEN (SELECT concat('CREATE ', word, ' ', substr(def, strpos(def, word) + length(word) + 1 + length(ns.prefix)))
    FROM coalesce((SELECT o.created FROM own_path o WHERE o.oid = proc.oid), pg_get_functiondef(proc.oid)) def) ELSE (SELECT format('CREATE AGGREGATE %I(%s) (%s)', proname, arguments, concat_ws(', ', 'SFUNC = ' || g.aggtransfn,
        'STYPE = ' || format_type(g.aggtranstype, NULL), 'SSPACE = ' || nullif(g.aggtransspace, 0), 'FINALFUNC = ' || nullif(g.aggfinalfn, 0)::regproc,
        CASE WHEN g.aggfinalextra THEN 'FINALFUNC_EXTRA' END, 'FINALFUNC_MODIFY = ' || CASE WHEN g.aggfinalfn <> 0 THEN CASE g.aggfinalmodify::text WHEN 's' THEN 'SHAREABLE' WHEN 'w' THEN 'READ_WRITE' END END,
        'COMBINEFUNC = ' || nullif(g.aggcombinefn, 0)::regproc, 'SERIALFUNC = ' || nullif(g.aggserialfn, 0)::regproc, 'DESERIALFUNC = ' || nullif(g.aggdeserialfn, 0)::regproc,
        'INITCOND = ' || quote_literal(g.agginitval), 'SORTOP = ' || nullif(g.aggsortop, 0)::regoperator,
        'PARALLEL = ' || CASE proparallel::text WHEN 's' THEN 'SAFE' WHEN 'r' THEN 'RESTRICTED' END)) FROM pg_aggregate g WHERE g.aggfnoid = proc.oid) END, '', ''
FROM proc, ns
UNION ALL
-- The name of the copy is known when the statement runs.
SELECT 'after', proc.node, 0, concat('DO ', quote_literal(format('BEGIN EXECUTE format(%L, current_schema()); END',
    format('ALTER ROUTINE %I(%s)', replace(proname, '%', '%%'), replace(arguments, '%', '%%')) || o.settings))), '', ''
FROM proc JOIN own_path o USING (oid)
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
            FROM pg_constraint k WHERE k.contypid = kind.oid AND k.conrelid = 0 AND k.contype = 'c'))
    WHEN 'r' THEN (SELECT format('CREATE TYPE %s AS RANGE (%s)', called, concat_ws(', ', 'SUBTYPE = ' || format_type(g.rngsubtype, NULL),
        (SELECT format('SUBTYPE_OPCLASS = %s%I', CASE WHEN o.opcnamespace <> 'pg_catalog'::regnamespace THEN o.opcnamespace::regnamespace || '.' END, o.opcname) FROM pg_opclass o WHERE o.oid = g.rngsubopc),
        'COLLATION = ' || nullif(g.rngcollation, 0)::regcollation, 'SUBTYPE_DIFF = ' || nullif(g.rngsubdiff, 0)::regproc,
        'MULTIRANGE_TYPE_NAME = ' || (SELECT quote_ident(m.typname) FROM pg_type m WHERE m.oid = (to_jsonb(g)->>'rngmultitypid')::oid)))
        FROM pg_range g WHERE g.rngtypid = kind.oid) END, '', ''
FROM kind
UNION ALL
SELECT 'create', node, oid::int8, pg_get_triggerdef(oid, true), '', ''
FROM trg
UNION ALL
-- Of each partition too: its trigger is a copy.
SELECT 'after', node, 1, format('ALTER TABLE ONLY %s %s TRIGGER %I', t.tgrelid::regclass, CASE t.tgenabled::text WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END, t.tgname), '', ''
FROM trg JOIN LATERAL (SELECT oid FROM rel WHERE rel.node = owner UNION SELECT leaf FROM tree WHERE root = trg.tgrelid) r ON true
JOIN pg_trigger t ON t.tgrelid = r.oid AND t.tgname = trg.tgname WHERE t.tgenabled <> 'O' AND (t.oid = trg.oid OR t.tgparentid <> 0)
UNION ALL
SELECT 'create', node, oid::int8, concat_ws(' ', format('CREATE POLICY %I ON %s AS %s FOR %s TO', polname, called,
    CASE WHEN polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
    CASE polcmd::text WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END),
    (SELECT string_agg(CASE WHEN r = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ') FROM unnest(polroles) r),
    'USING (' || pg_get_expr(polqual, polrelid) || ')', 'WITH CHECK (' || pg_get_expr(polwithcheck, polrelid) || ')'), '', ''
FROM pol
UNION ALL
SELECT 'create', node, sta.oid::int8, concat('CREATE STATISTICS ', substr(pg_get_statisticsobjdef(sta.oid), length('CREATE STATISTICS ' || ns.prefix) + 1)), '', ''
FROM sta, ns
UNION ALL
SELECT 'last', node, 1, format('ALTER STATISTICS %I SET STATISTICS %s', stxname, to_jsonb(sta)->>'stxstattarget'), '', ''
FROM sta WHERE to_jsonb(sta)->>'stxstattarget' <> '-1'
UNION ALL
SELECT 'last', '', d.objsubid, concat('COMMENT ON ', words, ' IS ', quote_literal(d.description)), '', ''
FROM thing JOIN pg_description d ON d.objoid = objid AND d.classoid = classid AND d.objsubid = sub
UNION ALL
SELECT 'owner', node, 0, format('ALTER %s OWNER TO %I', words, pg_get_userbyid(owner)), '', '' FROM thing WHERE owner IS NOT NULL
UNION ALL
SELECT 'owner', node, 1, format('REVOKE ALL ON %s FROM PUBLIC, %I', grants, pg_get_userbyid(grantor)), '', '' FROM thing WHERE acl IS NOT NULL AND col = ''
UNION ALL
SELECT 'owner', node, 2, format('GRANT %s ON %s TO %s%s', string_agg(x.privilege_type || col, ', ' ORDER BY x.privilege_type), grants,
    CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END, CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' END), '', ''
FROM thing, aclexplode(acl) x GROUP BY node, objid, sub, grants, x.grantee, x.is_grantable
UNION ALL
SELECT 'schema', '', 0, 'ALTER SCHEMA', ' OWNER TO ' || quote_ident(pg_get_userbyid(n.nspowner)), '' FROM ns JOIN pg_namespace n ON n.oid = ns.oid
UNION ALL
SELECT 'schema', '', 1, 'REVOKE ALL ON SCHEMA', format(' FROM PUBLIC, %I', pg_get_userbyid(n.nspowner)), '' FROM ns JOIN pg_namespace n ON n.oid = ns.oid WHERE n.nspacl IS NOT NULL
UNION ALL
SELECT 'schema', '', 2, format('GRANT %s ON SCHEMA', string_agg(x.privilege_type, ', ' ORDER BY x.privilege_type)), format(' TO %s%s',
    CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END, CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' END), ''
FROM ns JOIN pg_namespace n ON n.oid = ns.oid, aclexplode(n.nspacl) x GROUP BY x.grantee, x.is_grantable
UNION ALL
SELECT 'refuse', '', 0, format('the schema itself, on which %s granted privileges', pg_get_userbyid(x.grantor)), '', ''
FROM ns JOIN pg_namespace n ON n.oid = ns.oid, aclexplode(n.nspacl) x WHERE x.grantor <> n.nspowner
UNION ALL
SELECT 'schema', '', 3, 'COMMENT ON SCHEMA', ' IS ' || quote_literal(d.description), '' FROM ns JOIN pg_description d ON d.objoid = ns.oid AND d.classoid = 'pg_namespace'::regclass
UNION ALL
SELECT 'schema', '', 4, format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA', pg_get_userbyid(a.defaclrole)), format(' GRANT %s ON %s TO %s%s',
    string_agg(x.privilege_type, ', ' ORDER BY x.privilege_type), CASE a.defaclobjtype::text WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS' ELSE 'TYPES' END,
    CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END, CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' END), ''
FROM member m JOIN pg_default_acl a ON a.oid = m.objid, aclexplode(a.defaclacl) x WHERE m.classid = 'pg_default_acl'::regclass
GROUP BY a.oid, a.defaclrole, a.defaclobjtype, x.grantee, x.is_grantable
UNION ALL
SELECT 'mention', '', 0, text, described, ''
FROM (
    SELECT pg_describe_object('pg_proc'::regclass, oid, 0) AS described, concat_ws(' ', prosrc, coalesce((SELECT o.settings FROM own_path o WHERE o.oid = proc.oid), proconfig::text)) AS text FROM proc
    UNION ALL SELECT pg_describe_object('pg_class'::regclass, oid, 0), pg_get_viewdef(oid) FROM rel WHERE relkind IN ('v', 'm')
    UNION ALL SELECT pg_describe_object('pg_class'::regclass, attrelid, attnum), expression FROM col
    UNION ALL SELECT pg_describe_object('pg_constraint'::regclass, oid, 0), pg_get_constraintdef(oid) FROM con
    UNION ALL SELECT pg_describe_object('pg_constraint'::regclass, k.oid, 0), pg_get_constraintdef(k.oid) FROM kind JOIN pg_constraint k ON k.contypid = kind.oid AND k.conrelid = 0
    UNION ALL SELECT pg_describe_object('pg_class'::regclass, indexrelid, 0), pg_get_indexdef(indexrelid, 0, true) FROM ind
    UNION ALL SELECT pg_describe_object('pg_trigger'::regclass, oid, 0), pg_get_triggerdef(oid, true) FROM trg
    UNION ALL SELECT pg_describe_object('pg_rewrite'::regclass, oid, 0), pg_get_ruledef(oid, true) FROM rul
    UNION ALL SELECT pg_describe_object('pg_policy'::regclass, oid, 0), concat_ws(' ', pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) FROM pol
    UNION ALL SELECT pg_describe_object('pg_type'::regclass, oid, 0), pg_get_expr(typdefaultbin, 0) FROM kind
) t, (SELECT lower(nspname::text COLLATE "default") AS name FROM ns) n
WHERE strpos(lower(text COLLATE "default"), n.name) > 0 OR strpos(lower(text COLLATE "default"), replace(n.name, '"', '""')) > 0
UNION ALL
SELECT DISTINCT 'edge', a.node, 0::int8, '', b.node, ''
FROM part a JOIN pg_depend d ON d.classid = a.classid AND d.objid = a.objid
JOIN part b ON b.classid = d.refclassid AND b.objid = d.refobjid
WHERE a.node <> b.node
-- A sequence is created before the table that owns it: the default of the table depends on it.
AND NOT (d.deptype = 'a' AND a.node IN (SELECT node FROM seq) AND d.refobjsubid <> 0)
