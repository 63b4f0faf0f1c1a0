//! The SQL files on disk.
