-- refused at load
DISCARD ALL;
