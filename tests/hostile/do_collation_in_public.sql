-- refused by the guard
DO $$ BEGIN
    CREATE COLLATION public.hostile FROM "C";
END $$;
