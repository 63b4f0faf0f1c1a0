//! Other tools, installed into the target folder when they are asked for.
