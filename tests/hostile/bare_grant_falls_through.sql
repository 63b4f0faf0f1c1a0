-- refused by the guard
GRANT SELECT ON rates TO PUBLIC;
