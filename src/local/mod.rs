//! The private `PostgreSQL` server that a newcomer gets.
