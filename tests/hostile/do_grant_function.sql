-- refused by the guard
DO $$ BEGIN
    REVOKE ALL ON FUNCTION public.twice(int) FROM PUBLIC;
END $$;
