-- refused at load
WITH gone AS (DELETE FROM public.rates RETURNING id) SELECT count(*) FROM gone;
