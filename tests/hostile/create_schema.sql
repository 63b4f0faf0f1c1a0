-- refused at load
CREATE SCHEMA hostile_new;
