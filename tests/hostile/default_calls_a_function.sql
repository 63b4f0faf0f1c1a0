-- refused by the guard
CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN DELETE FROM public.rates; RETURN 1; END';
CREATE TABLE a (id int);
INSERT INTO a VALUES (1);
ALTER TABLE a ADD COLUMN b int DEFAULT f();
