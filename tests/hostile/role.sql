-- refused at load
SET LOCAL ROLE hostile_reader;
