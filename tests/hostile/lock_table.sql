-- refused by the guard
DO $$ BEGIN
    LOCK TABLE public.rates IN SHARE MODE;
END $$;
