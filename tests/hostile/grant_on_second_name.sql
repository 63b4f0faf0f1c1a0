-- refused at load
CREATE TABLE a (id int);
GRANT SELECT ON a, public.rates TO PUBLIC;
