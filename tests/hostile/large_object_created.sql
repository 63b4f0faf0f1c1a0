-- refused by the guard
SELECT lo_create(0);
