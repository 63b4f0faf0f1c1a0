-- refused at load
RESET ALL;
