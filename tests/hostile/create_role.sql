-- refused at load
CREATE ROLE hostile_new SUPERUSER;
