-- refused at load
COMMIT PREPARED 'hostile';
