-- What runs learned about their nodes; it is laid over the inventory.
CREATE TABLE IF NOT EXISTS learned (
    node TEXT NOT NULL,
    path TEXT NOT NULL,                     -- `provision_state`, `instance_info.boot_iso`
    value TEXT NOT NULL,                    -- JSON
    run TEXT NOT NULL, t_ms INTEGER NOT NULL,
    PRIMARY KEY (node, path)
) WITHOUT ROWID;

-- Which nodes hold which shared boot ISO; its usage_count is their number.
CREATE TABLE IF NOT EXISTS boot_iso (
    name TEXT NOT NULL, node TEXT NOT NULL, run TEXT NOT NULL, t_ms INTEGER NOT NULL,
    PRIMARY KEY (name, node)
) WITHOUT ROWID;

-- Who changes a shared boot ISO. A run that ended or whose owner died holds nothing any more.
CREATE TABLE IF NOT EXISTS boot_iso_lock (name TEXT PRIMARY KEY, run TEXT NOT NULL) WITHOUT ROWID;

-- Names this journal, so that two sites never count the users of one object.
CREATE TABLE IF NOT EXISTS site (id TEXT NOT NULL);
INSERT INTO site SELECT lower(hex(randomblob(8))) WHERE NOT EXISTS (SELECT 1 FROM site);
