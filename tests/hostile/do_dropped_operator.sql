-- refused by the guard
DO $$ BEGIN
    DROP OPERATOR public.!!! (NONE, int);
END $$;
