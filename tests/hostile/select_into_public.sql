-- refused at load
SELECT 1 AS a INTO public.hostile;
