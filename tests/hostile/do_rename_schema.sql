-- refused by the guard
DO $$ BEGIN
    ALTER SCHEMA tenant_globex RENAME TO tenant_gone;
END $$;
