-- What new runs take of the flow folders, and what of them did not check.
CREATE TABLE IF NOT EXISTS edit (
    seq INTEGER PRIMARY KEY,
    t_ms INTEGER NOT NULL,
    version TEXT NOT NULL,                  -- content hash of all flows that new runs can take
    flows TEXT NOT NULL,                    -- JSON, these flows with their bundles
    broken TEXT                             -- JSON, what is wrong with what is in the folders
);
