//! HPE iLO management processors: one set of actions over every dialect.
