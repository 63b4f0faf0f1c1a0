-- refused by the guard
SELECT nextval('numbers');
