-- refused by the guard
DO $$ BEGIN
    DROP SCHEMA tenant_globex CASCADE;
END $$;
