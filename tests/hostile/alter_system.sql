-- refused at load
ALTER SYSTEM SET work_mem = '64kB';
