//! Runs and their calls on disk.
