-- refused by the guard
SELECT lo_unlink(4711);
