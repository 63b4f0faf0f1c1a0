-- refused at load
COMMENT ON COLUMN public.rates.rate IS 'ours';
