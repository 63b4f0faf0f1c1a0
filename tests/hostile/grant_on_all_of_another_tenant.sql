-- refused at load
GRANT SELECT ON ALL TABLES IN SCHEMA tenant_globex TO PUBLIC;
