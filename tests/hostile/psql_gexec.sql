-- refused at load
SELECT 'DROP TABLE public.plans' \gexec

