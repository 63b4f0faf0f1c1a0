-- refused by the guard
DO $$ BEGIN
    CREATE OR REPLACE FUNCTION public.twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 3 * n';
END $$;
