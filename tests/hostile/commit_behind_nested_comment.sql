-- refused at load
/* outer /* inner */ still a comment ; */ COMMIT;
