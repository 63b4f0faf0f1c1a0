-- refused by the guard
DO $$ BEGIN
    COMMENT ON FUNCTION public.twice(int) IS 'ours';
END $$;
