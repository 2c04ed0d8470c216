//! The built-in object store: Swift's object API over files.
