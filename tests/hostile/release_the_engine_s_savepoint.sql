-- refused at load
RELEASE SAVEPOINT pricesync_relative;
