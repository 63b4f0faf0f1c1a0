-- refused by the guard
DO $$ BEGIN
    ALTER ROLE hostile_reader SUPERUSER;
END $$;
