//! Swift's object API.
