-- refused at load
COMMIT AND CHAIN;
