-- refused by the server
CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN DELETE FROM public.rates; RETURN 1; END';
CREATE TABLE a (id int);
INSERT INTO a VALUES (1);
CREATE INDEX ON a (f(id));
