-- refused by the guard
DO $$ BEGIN
    CREATE CAST (public.mood AS int) WITH INOUT AS ASSIGNMENT; 
END $$;
