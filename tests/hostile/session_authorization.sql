-- refused at load
SET SESSION AUTHORIZATION hostile_reader;
