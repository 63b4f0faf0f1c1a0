-- refused at load
ALTER USER hostile_reader SUPERUSER;
