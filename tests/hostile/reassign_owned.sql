-- refused at load
REASSIGN OWNED BY hostile_reader TO postgres;
