-- refused by the guard
DO $$ BEGIN
    EXECUTE 'GRANT ALL ON public.rates TO PUBLIC';
END $$;
