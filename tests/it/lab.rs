//! The simulated site as a whole.
