-- refused at load
GRANT CREATE ON SCHEMA public TO hostile_reader;
