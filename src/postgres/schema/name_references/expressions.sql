-- Expressions of objects in a schema, in which names of the schema itself are not qualified.
-- Each row: a description, the expression.
SELECT pg_describe_object('pg_class'::regclass, v.oid, 0), pg_get_viewdef(v.oid)
FROM pg_class v
JOIN pg_class c ON c.oid = v.oid
WHERE c.relnamespace = (SELECT n.oid FROM pg_namespace n WHERE n.nspname = {name}) AND v.relkind IN ('v', 'm')
UNION ALL
SELECT pg_describe_object('pg_attrdef'::regclass, x.oid, 0), pg_get_expr(x.adbin, x.adrelid)
FROM pg_attrdef x
JOIN pg_class c ON c.oid = x.adrelid
WHERE c.relnamespace = (SELECT n.oid FROM pg_namespace n WHERE n.nspname = {name})
UNION ALL
SELECT pg_describe_object('pg_constraint'::regclass, x.oid, 0), pg_get_constraintdef(x.oid)
FROM pg_constraint x
JOIN pg_class c ON c.oid = x.conrelid
WHERE c.relnamespace = (SELECT n.oid FROM pg_namespace n WHERE n.nspname = {name}) AND x.contype = 'c'
UNION ALL
SELECT pg_describe_object('pg_policy'::regclass, x.oid, 0),
    concat_ws(' ', pg_get_expr(x.polqual, x.polrelid), pg_get_expr(x.polwithcheck, x.polrelid))
FROM pg_policy x
JOIN pg_class c ON c.oid = x.polrelid
WHERE c.relnamespace = (SELECT n.oid FROM pg_namespace n WHERE n.nspname = {name})
UNION ALL
SELECT pg_describe_object('pg_class'::regclass, x.indexrelid, 0),
    concat_ws(' ', pg_get_expr(x.indexprs, x.indrelid), pg_get_expr(x.indpred, x.indrelid))
FROM pg_index x
JOIN pg_class c ON c.oid = x.indrelid
WHERE c.relnamespace = (SELECT n.oid FROM pg_namespace n WHERE n.nspname = {name})
    AND (x.indexprs IS NOT NULL OR x.indpred IS NOT NULL)
