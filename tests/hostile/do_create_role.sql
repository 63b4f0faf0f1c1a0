-- refused by the guard
DO $$ BEGIN
    CREATE ROLE hostile_new SUPERUSER;
END $$;
