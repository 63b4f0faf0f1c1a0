-- refused at load
CREATE PUBLICATION hostile_pub FOR ALL TABLES;
