-- refused by the guard
WITH gone AS (DELETE FROM public.rates RETURNING id) SELECT count(*) FROM gone;
