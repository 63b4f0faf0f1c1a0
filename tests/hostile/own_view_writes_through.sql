-- refused by the guard
CREATE VIEW v AS SELECT * FROM public.rates;
UPDATE v SET rate = 9;
