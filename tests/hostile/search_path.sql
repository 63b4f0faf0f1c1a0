-- refused at load
SET search_path = public;
DROP TABLE plans;
