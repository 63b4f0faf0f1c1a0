-- refused by the guard
DO $$ BEGIN
    PERFORM FROM public.rates FOR UPDATE;
END $$;
