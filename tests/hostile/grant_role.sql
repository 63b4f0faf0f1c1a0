-- refused at load
GRANT pg_read_all_data TO hostile_reader;
