//! The object store and the Swift client, with python-swiftclient as a second opinion.
