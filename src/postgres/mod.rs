//! The only SQL, and the only driver.
