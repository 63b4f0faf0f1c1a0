-- refused by the guard
CREATE POLICY p ON rates USING (false);
