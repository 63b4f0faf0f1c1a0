-- refused by the guard
DO $$ BEGIN
    CREATE OPERATOR tenant_globex.!! (RIGHTARG = int, FUNCTION = public.twice);
END $$;
