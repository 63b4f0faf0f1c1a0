-- refused by the guard
DO $$ BEGIN
    COMMENT ON TABLE public.rates IS 'ours';
END $$;
