-- refused at load
CREATE DATABASE hostile_new;
