//! Runs one unit of work over many schemas: bounded, cancellable, one outcome each.
