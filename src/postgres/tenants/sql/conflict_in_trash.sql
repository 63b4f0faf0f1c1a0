UNION ALL
SELECT 1, r.slug, 'a tenant in the trash (pricesync_trash_' || r.id || ')' FROM pricesync.trash r
WHERE {slug_changes} AND lower(r.slug) = lower({slug})
UNION ALL
SELECT 2, r.schema_name, 'a tenant in the trash (pricesync_trash_' || r.id || ')' FROM pricesync.trash r
WHERE {schema_changes} AND lower(r.schema_name) = lower({schema})
