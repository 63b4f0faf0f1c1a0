-- refused by the guard
CREATE TABLE k (rate int REFERENCES rates (id));
DO $$ BEGIN
    REVOKE ALL ON public.rates FROM hostile_reader;
END $$;
