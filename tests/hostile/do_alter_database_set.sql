-- refused by the guard
DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET search_path = tenant_acme', current_database());
END $$;
