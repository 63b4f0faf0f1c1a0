-- refused by the guard
DROP TABLE plans;
