-- Functions, settings and trigger arguments of the whole database whose text may hold a schema's
-- name. Each row: a description, the text.
SELECT pg_describe_object('pg_proc'::regclass, p.oid, 0), t.text
FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace
CROSS JOIN LATERAL (
    -- The search_path of the schema's own functions is renamed with it.
    SELECT concat_ws(' ', p.prosrc, (
        SELECT string_agg(CASE WHEN n.nspname = {name} AND starts_with(c, 'search_path=')
            THEN replace(', ' || substr(c, length('search_path=') + 1) || ',', ', ' || quote_ident({name}) || ',', ', ')
            ELSE c END, ' ') FROM unnest(p.proconfig) c
    )) AS text
) t
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pricesync')
    AND (strpos(lower(t.text), lower({name})) > 0 OR strpos(lower(t.text), lower({quoted_name})) > 0)
    AND NOT EXISTS (
        SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e'
    )
UNION ALL
SELECT concat_ws(' in ',
        CASE WHEN s.setrole = 0 THEN 'settings' ELSE 'settings of role ' || s.setrole::regrole END,
        'database ' || d.datname),
    t.text
FROM pg_db_role_setting s
LEFT JOIN pg_database d ON d.oid = s.setdatabase
CROSS JOIN LATERAL (SELECT array_to_string(s.setconfig, ' ') AS text) t
WHERE (s.setdatabase = 0 OR d.datname = current_database())
    AND (strpos(lower(t.text), lower({name})) > 0 OR strpos(lower(t.text), lower({quoted_name})) > 0)
UNION ALL
SELECT pg_describe_object('pg_trigger'::regclass, t.oid, 0), encode(t.tgargs, 'escape')
FROM pg_trigger t
WHERE t.tgnargs > 0 AND NOT t.tgisinternal
