//! Creating, dropping and resolving tenants: the order of the steps.
