-- Since 0.1.0: the certificates by which an operator knows management processors.
CREATE TABLE IF NOT EXISTS pin (
    node TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,              -- SHA-256 of the certificate
    pinned_ms INTEGER NOT NULL
) WITHOUT ROWID;
