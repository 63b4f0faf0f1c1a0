-- refused by the guard
PREPARE gone AS DELETE FROM rates;
EXECUTE gone;
