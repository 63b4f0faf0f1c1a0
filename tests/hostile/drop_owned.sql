-- refused at load
DROP OWNED BY hostile_reader CASCADE;
