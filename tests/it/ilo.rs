//! The iLO client against the simulated iLO.
