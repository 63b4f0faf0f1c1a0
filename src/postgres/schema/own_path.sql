    -- Functions whose search_path names the schema: `SET search_path FROM CURRENT` stores the name. The
    -- definition with a placeholder for it; the definition without settings; the settings as clauses of
    -- ALTER ROUTINE, for format(), with the name as the argument.
    SELECT p.oid, d.head || s.named || chr(10) || d.tail AS named, d.head || d.tail AS created, s.settings
    FROM proc p CROSS JOIN LATERAL (SELECT pg_get_functiondef(p.oid) AS text OFFSET 0) f
    CROSS JOIN LATERAL (SELECT strpos(f.text, chr(10) || ' SET ') AS at) a
    CROSS JOIN LATERAL (SELECT string_to_array(substr(f.text, a.at + 1), chr(10)) AS lines, cardinality(p.proconfig) AS count) l
    CROSS JOIN LATERAL (SELECT left(f.text, a.at) AS head, array_to_string(l.lines[l.count + 1:], chr(10)) AS tail) d
    CROSS JOIN LATERAL (
        SELECT string_agg(coalesce(w.start || substr(e.named, 3, length(e.named) - 3), u.line), chr(10) ORDER BY u.n) AS named,
            string_agg(coalesce(w.start || substr(e.settings, 3, length(e.settings) - 3), replace(u.line, '%', '%%')), '' ORDER BY u.n) AS settings,
            bool_or(strpos(w.path, ', ' || quote_literal({own_name}) || ',') > 0) AS is_own
        FROM unnest(l.lines[:l.count]) WITH ORDINALITY u (line, n)
        CROSS JOIN (SELECT ' SET search_path TO ' AS start) v
        CROSS JOIN LATERAL (SELECT v.start, CASE WHEN starts_with(u.line, v.start) THEN ', ' || substr(u.line, length(v.start) + 1) || ',' END AS path) w
        CROSS JOIN LATERAL (
            SELECT replace(w.path, ', ' || quote_literal({own_name}) || ',', ', <its schema>,') AS named,
                replace(replace(w.path, '%', '%%'), ', ' || replace(quote_literal({own_name}), '%', '%%') || ',', ', %1$L,') AS settings
        ) e
    ) s
    WHERE p.prokind <> 'a' AND p.proconfig IS NOT NULL AND s.is_own
