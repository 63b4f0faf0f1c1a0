-- refused at load
CREATE FOREIGN DATA WRAPPER hostile_wrapper;
