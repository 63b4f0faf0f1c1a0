-- refused by the guard
DO $$ BEGIN
    CREATE EXTENSION pg_trgm;
END $$;
