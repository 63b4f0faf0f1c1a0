-- refused at load
ABORT WORK;
