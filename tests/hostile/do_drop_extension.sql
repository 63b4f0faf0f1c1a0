-- refused by the guard
DO $$ BEGIN
    DROP EXTENSION hstore;
END $$;
