-- refused at load
END TRANSACTION;
