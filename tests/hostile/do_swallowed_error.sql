-- refused by the guard
DO $$ BEGIN
    BEGIN DROP TABLE public.plans; PERFORM 1/0; EXCEPTION WHEN division_by_zero THEN NULL; END; DELETE FROM public.rates;
END $$;
