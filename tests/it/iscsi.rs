//! Initiator and target against each other, tgt and libiscsi.
