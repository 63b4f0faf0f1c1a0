-- refused at load
CREATE INDEX ON public.rates (rate);
