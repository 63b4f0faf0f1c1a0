-- refused by the guard
UPDATE rates SET rate = 0;
