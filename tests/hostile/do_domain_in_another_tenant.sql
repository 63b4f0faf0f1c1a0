-- refused by the guard
DO $$ BEGIN
    CREATE DOMAIN tenant_globex.d AS int;
END $$;
