-- refused by the guard
CREATE RULE r AS ON INSERT TO rates DO INSTEAD NOTHING;
