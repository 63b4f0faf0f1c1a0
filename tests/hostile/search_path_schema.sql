-- refused at load
SET SCHEMA 'public';
