-- refused by the guard
CREATE SUBSCRIPTION hostile_sub CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false);
