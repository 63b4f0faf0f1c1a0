-- refused by the guard
DO $$ BEGIN
    CREATE SCHEMA hostile_new;
END $$;
