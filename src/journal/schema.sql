-- Never edited after a release; later versions add files beside it.
CREATE TABLE IF NOT EXISTS blob (hash TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS bundle (
    hash TEXT NOT NULL, path TEXT NOT NULL, blob TEXT NOT NULL REFERENCES blob (hash),
    PRIMARY KEY (hash, path)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS run (
    id TEXT PRIMARY KEY,
    node TEXT NOT NULL,
    flow TEXT NOT NULL,
    action TEXT NOT NULL,
    entry TEXT NOT NULL,                    -- path of the flow file inside its bundle
    bundle TEXT NOT NULL,
    params TEXT NOT NULL,                   -- JSON, as the flow sees them
    node_view TEXT NOT NULL,                -- JSON, the node as it was when the run started
    status TEXT NOT NULL,
    error TEXT,                             -- JSON of the first failure
    result TEXT,                            -- JSON of what the action returned
    cancel INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    resumes INTEGER NOT NULL DEFAULT 0,
    downtime_ms INTEGER NOT NULL DEFAULT 0, -- time without an owner, given back to waits
    owner TEXT NOT NULL,
    fence INTEGER NOT NULL,
    alive_ms INTEGER NOT NULL               -- when the owner last said that it lives
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS run_created ON run (created_ms);
CREATE INDEX IF NOT EXISTS run_status ON run (status);

CREATE TABLE IF NOT EXISTS entry (
    run TEXT NOT NULL, key TEXT NOT NULL,
    seq INTEGER NOT NULL,
    name TEXT NOT NULL,
    class TEXT NOT NULL,
    site TEXT NOT NULL,                     -- file:line of the flow
    args TEXT NOT NULL, args_hash TEXT NOT NULL,
    state TEXT NOT NULL,                    -- started, ok, failed
    result TEXT,
    attempt INTEGER NOT NULL DEFAULT 1,
    t0_ms INTEGER NOT NULL, t1_ms INTEGER,
    deadline_ms INTEGER,
    downtime_ms INTEGER NOT NULL DEFAULT 0, -- the run's downtime when the deadline was set
    fence INTEGER NOT NULL,
    PRIMARY KEY (run, key)
) WITHOUT ROWID;

-- What a run told, in its order; log lines are events too.
CREATE TABLE IF NOT EXISTS event (
    run TEXT NOT NULL, seq INTEGER NOT NULL,
    name TEXT NOT NULL,
    body TEXT NOT NULL,                     -- JSON
    PRIMARY KEY (run, seq)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS inbox (
    run TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, t_ms INTEGER NOT NULL,
    PRIMARY KEY (run, name)
) WITHOUT ROWID;

-- What a callback needs to be let in: only hashes of its key and token are kept.
CREATE TABLE IF NOT EXISTS expect (
    run TEXT PRIMARY KEY, node_uuid TEXT NOT NULL, key_hash TEXT NOT NULL,
    token_hash TEXT NOT NULL, iqn TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS expect_node ON expect (node_uuid);

-- Sessions on management processors that an owner left behind if it died.
CREATE TABLE IF NOT EXISTS session (
    run TEXT NOT NULL, name TEXT NOT NULL, path TEXT NOT NULL, PRIMARY KEY (run, name, path)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS node_lock (
    node TEXT PRIMARY KEY, run TEXT NOT NULL, fence INTEGER NOT NULL
) WITHOUT ROWID;
