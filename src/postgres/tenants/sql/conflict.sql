SELECT 1, t.slug, 'tenant ''' || t.slug || ''' (' || t.name || ')' FROM {rows} t
WHERE {slug_changes} AND lower(t.given_slug) = lower({slug}) AND {is_other}
UNION ALL
SELECT 2, t.schema_name, 'tenant ''' || t.slug || '''' FROM {rows} t
WHERE {schema_changes} AND lower(t.schema_name) = lower({schema}) AND {is_other}
UNION ALL
SELECT 2, n.nspname, 'an existing schema' FROM pg_namespace n
WHERE {schema_changes} AND lower(n.nspname::text COLLATE pg_catalog."default") = lower({schema})
  AND n.nspname <> {own_schema}
UNION ALL
SELECT 3, d.domain, 'tenant ''' || t.slug || '''' FROM {hosts} d JOIN {rows} t ON t.id = d.tenant_id
WHERE lower(d.domain) = ANY (ARRAY[{new_hosts}]::text[])
