-- refused by the guard
CREATE TABLE a (id int);
CREATE RULE r AS ON INSERT TO a DO ALSO DELETE FROM public.rates;
INSERT INTO a VALUES (1);
