-- refused at load
GRANT ALL ON public.rates TO PUBLIC;
