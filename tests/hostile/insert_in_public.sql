-- refused at load
INSERT INTO public.rates VALUES (3, 1);
