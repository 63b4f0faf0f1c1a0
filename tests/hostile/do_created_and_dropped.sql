-- refused by the guard
DO $$ BEGIN
    CREATE TABLE public.x (id int); DROP TABLE public.x; UPDATE public.rates SET rate = 0;
END $$;
