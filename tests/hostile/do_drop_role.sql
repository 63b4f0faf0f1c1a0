-- refused by the guard
DO $$ BEGIN
    DROP ROLE hostile_spare;
END $$;
