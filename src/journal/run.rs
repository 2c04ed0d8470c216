//! What is asked of the journal: one method a question.

use super::learned;
use super::record::{
    Bundle, Entry, EntryState, ExpectedCallback, LogLine, NodeLock, NodeOwner, RunRecord,
    RunStatus, Takeover,
};
use super::store::Journal;
use crate::clock;
use crate::error::{Error, Kind, Result};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

/// A run about to be created.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields of RunRecord of the same names")]
pub struct NewRun {
    pub id: String,
    pub node: String,
    pub flow: String,
    pub action: String,
    pub entry: String,
    pub params: Value,
    pub node_view: Value,
    pub owner: String,
}

impl Journal {
    /// Locks the node and creates the run with its bundle, all or nothing.
    ///
    /// # Errors
    /// Only the database's; a held node is an answer.
    pub async fn create_run(&self, new: NewRun, bundle: Bundle) -> Result<NodeLock> {
        self.exec(move |db| {
            if let Some(owner) = holder(db, &new.node)? {
                return Ok(NodeLock::Held(owner));
            }
            save_bundle(db, &bundle)?;
            let mut view = new.node_view;
            learned::lay_over(&mut view, &learned::load(db, &new.node)?);
            let now = ms(clock::unix_ms());
            db.prepare_cached(
                "INSERT INTO run (id, node, flow, action, entry, bundle, params, node_view, status,
                 created_ms, owner, fence, alive_ms) VALUES (?,?,?,?,?,?,?,?,'running',?,?,1,?)",
            )?
            .execute(params![
                new.id,
                new.node,
                new.flow,
                new.action,
                new.entry,
                bundle.hash,
                new.params.to_string(),
                view.to_string(),
                now,
                new.owner,
                now
            ])?;
            db.execute(
                "INSERT OR REPLACE INTO node_lock (node, run, fence) VALUES (?,?,1)",
                params![new.node, new.id],
            )?;
            Ok(NodeLock::Taken(view))
        })
        .await
    }

    /// Makes `owner` the owner of a run: a new fence, its downtime counted, its entries loaded.
    ///
    /// # Errors
    /// `conflict` if somebody else took it over since `seen_fence` was read.
    pub async fn take_over(&self, id: &str, owner: String, seen_fence: u64) -> Result<Takeover> {
        let run = id.to_owned();
        let taken = self
            .exec(move |db| {
                let now = ms(clock::unix_ms());
                let changed = db.execute(
                    "UPDATE run SET owner = ?1, fence = fence + 1, status = 'running',
                     resumes = resumes + 1, downtime_ms = downtime_ms + max(0, ?2 - alive_ms),
                     alive_ms = ?2 WHERE id = ?3 AND fence = ?4",
                    params![owner, now, run, ms(seen_fence)],
                )?;
                if changed == 0 {
                    return Ok(None);
                }
                let record = load_run(db, &run)?;
                db.execute(
                    "INSERT OR REPLACE INTO node_lock (node, run, fence) VALUES (?,?,?)",
                    params![record.node, run, ms(record.fence)],
                )?;
                let entries = load_entries(db, &run)?;
                Ok(Some(Takeover {
                    run: record,
                    entries,
                }))
            })
            .await?;
        taken.ok_or_else(|| {
            Error::new(Kind::Conflict, "another process took this run over").target(id)
        })
    }

    /// Says that the owner lives; answers whether the operator asked to cancel.
    ///
    /// # Errors
    /// `conflict` if the run has another owner now.
    pub async fn heartbeat(&self, id: &str, fence: u64) -> Result<bool> {
        let run = id.to_owned();
        let cancel = self
            .exec(move |db| {
                db.prepare_cached(
                    "UPDATE run SET alive_ms = ? WHERE id = ? AND fence = ? RETURNING cancel",
                )?
                .query_row(params![ms(clock::unix_ms()), run, ms(fence)], |row| {
                    row.get(0)
                })
                .optional()
            })
            .await?;
        cancel.ok_or_else(|| fenced(id))
    }

    /// Writes the start of a call and waits until it is on disk.
    ///
    /// # Errors
    /// `conflict` if the run has another owner now.
    pub async fn begin(&self, id: &str, fence: u64, entry: Entry) -> Result<()> {
        let run = id.to_owned();
        let written = self
            .exec(move |db| insert_entry(db, &run, fence, &entry))
            .await?;
        if written { Ok(()) } else { Err(fenced(id)) }
    }

    /// Writes the end of a call, soon. Losing it to a crash leaves the call in doubt, which its
    /// crash class covers.
    pub fn finish(&self, id: &str, fence: u64, entry: Entry) {
        let run = id.to_owned();
        self.post("finish", move |db| {
            if !insert_entry(db, &run, fence, &entry)? {
                tracing::warn!(
                    run,
                    key = entry.key,
                    "not recorded: the run has another owner"
                );
            }
            Ok(())
        });
    }

    /// Appends to the run's log.
    pub fn log(&self, id: &str, line: LogLine) {
        let run = id.to_owned();
        self.post("log", move |db| {
            db.prepare_cached(
                "INSERT INTO log SELECT ?1, 1 + coalesce(max(seq), 0), ?2, ?3, ?4, ?5
                 FROM log WHERE run = ?1",
            )?
            .execute(params![
                run,
                ms(line.t_ms),
                line.level,
                line.step,
                line.text
            ])?;
            Ok(())
        });
    }

    /// Ends or stops a run; a final status frees its node and forgets what callbacks it expected.
    ///
    /// # Errors
    /// `conflict` if the run has another owner now.
    pub async fn end_run(
        &self,
        id: &str,
        fence: u64,
        status: RunStatus,
        error: Option<Error>,
        result: Option<Value>,
    ) -> Result<()> {
        let run = id.to_owned();
        let written = self
            .exec(move |db| {
                let now = ms(clock::unix_ms());
                let changed = db.execute(
                    "UPDATE run SET status = ?, error = ?, result = ?, ended_ms = ?, alive_ms = ?
                     WHERE id = ? AND fence = ?",
                    params![
                        status.as_str(),
                        error.and_then(|e| serde_json::to_string(&e).ok()),
                        result.map(|v| v.to_string()),
                        status.is_final().then_some(now),
                        now,
                        run,
                        ms(fence)
                    ],
                )?;
                if changed > 0 && status.is_final() {
                    db.execute("DELETE FROM node_lock WHERE run = ?", [&run])?;
                    db.execute("DELETE FROM expect WHERE run = ?", [&run])?;
                    db.execute("DELETE FROM session WHERE run = ?", [&run])?;
                }
                Ok(changed > 0)
            })
            .await?;
        if written { Ok(()) } else { Err(fenced(id)) }
    }

    /// Asks the owner of a run to cancel it.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn request_cancel(&self, id: &str) -> Result<()> {
        let run = id.to_owned();
        self.exec(move |db| {
            db.execute("UPDATE run SET cancel = 1 WHERE id = ?", [run])
                .map(|_| ())
        })
        .await
    }

    /// The run whose id begins with `prefix`.
    ///
    /// # Errors
    /// `not_found` if none does, `conflict` if several do.
    pub async fn find_run(&self, prefix: &str) -> Result<RunRecord> {
        let wanted = prefix.to_owned();
        let mut found = self
            .exec(move |db| {
                let sql = format!("{RUN} WHERE substr(id, 1, length(?1)) = ?1 LIMIT 2");
                db.prepare(&sql)?
                    .query_map([wanted], run_of_row)?
                    .collect::<Result<Vec<_>, _>>()
            })
            .await?;
        match (found.pop(), found.is_empty()) {
            (Some(run), true) => Ok(run),
            (None, _) => Err(
                Error::new(Kind::NotFound, format!("there is no run {prefix}"))
                    .hint("`flowrun runs` lists them"),
            ),
            (Some(_), false) => Err(Error::new(
                Kind::Conflict,
                format!("several runs begin with {prefix}"),
            )
            .hint("give more of the id")),
        }
    }

    /// The newest `limit` runs, newest first.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn list_runs(&self, limit: u32) -> Result<Vec<RunRecord>> {
        self.exec(move |db| {
            let sql = format!("{RUN} ORDER BY created_ms DESC, id DESC LIMIT ?");
            db.prepare(&sql)?.query_map([limit], run_of_row)?.collect()
        })
        .await
    }

    /// The calls and steps of a run in the order they began.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn entries(&self, id: &str) -> Result<Vec<Entry>> {
        let run = id.to_owned();
        self.exec(move |db| load_entries(db, &run)).await
    }

    /// A run's log, from line `after` on.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn logs(&self, id: &str, after: u64) -> Result<Vec<LogLine>> {
        let run = id.to_owned();
        self.exec(move |db| {
            db.prepare_cached(
                "SELECT t_ms, level, step, text FROM log WHERE run = ? AND seq > ? ORDER BY seq",
            )?
            .query_map(params![run, ms(after)], |row| {
                Ok(LogLine {
                    t_ms: unsigned(row.get(0)?),
                    level: row.get(1)?,
                    step: row.get(2)?,
                    text: row.get(3)?,
                })
            })?
            .collect()
        })
        .await
    }

    /// The files of a bundle.
    ///
    /// # Errors
    /// `not_found` if no run used it.
    pub async fn bundle(&self, hash: &str) -> Result<Bundle> {
        let wanted = hash.to_owned();
        let files: std::collections::BTreeMap<String, String> = self
            .exec(move |db| {
                db.prepare(
                    "SELECT path, CAST(body AS TEXT) FROM bundle JOIN blob ON blob.hash = blob
                     WHERE bundle.hash = ?",
                )?
                .query_map([wanted], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
            })
            .await?;
        if files.is_empty() {
            return Err(Error::new(
                Kind::NotFound,
                format!("there is no bundle {hash}"),
            ));
        }
        Ok(Bundle {
            hash: hash.to_owned(),
            files,
        })
    }

    /// Lets callbacks for a node in that carry the key with this hash. Idempotent.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn expect_callback(
        &self,
        id: &str,
        node_uuid: String,
        key_hash: String,
        token_hash: String,
        iqn: String,
    ) -> Result<()> {
        let run = id.to_owned();
        self.exec(move |db| {
            db.execute(
                "INSERT OR REPLACE INTO expect (run, node_uuid, key_hash, token_hash, iqn)
                 VALUES (?,?,?,?,?)",
                params![run, node_uuid, key_hash, token_hash, iqn],
            )
            .map(|_| ())
        })
        .await
    }

    /// The runs that expect a callback of this node.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn expected(&self, node_uuid: &str) -> Result<Vec<ExpectedCallback>> {
        let uuid = node_uuid.to_owned();
        self.exec(move |db| {
            db.prepare_cached(
                "SELECT run, key_hash, token_hash, iqn FROM expect WHERE node_uuid = ?",
            )?
            .query_map([uuid], |row| {
                Ok(ExpectedCallback {
                    run: row.get(0)?,
                    key_hash: row.get(1)?,
                    token_hash: row.get(2)?,
                    iqn: row.get(3)?,
                })
            })?
            .collect()
        })
        .await
    }

    /// Keeps a message for a run, durably. The first one of a name wins; answers the one kept.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn deliver(&self, id: &str, name: &'static str, body: String) -> Result<String> {
        let run = id.to_owned();
        self.exec(move |db| {
            db.execute(
                "INSERT OR IGNORE INTO inbox (run, name, body, t_ms) VALUES (?,?,?,?)",
                params![run, name, body, ms(clock::unix_ms())],
            )?;
            message(db, &run, name).map(Option::unwrap_or_default)
        })
        .await
    }

    /// Notes an open session, durably, and answers those that earlier owners of the run left.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn replace_sessions(
        &self,
        id: &str,
        name: String,
        path: Option<String>,
    ) -> Result<Vec<String>> {
        let run = id.to_owned();
        self.exec(move |db| {
            let left = db
                .prepare("DELETE FROM session WHERE run = ? AND name = ? RETURNING path")?
                .query_map(params![run, name], |row| row.get(0))?
                .collect::<Result<Vec<String>, _>>()?;
            if let Some(path) = path {
                let row = params![run, name, path];
                db.execute("INSERT INTO session (run, name, path) VALUES (?,?,?)", row)?;
            }
            Ok(left)
        })
        .await
    }

    /// The message of this name, if it came.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn inbox(&self, id: &str, name: &'static str) -> Result<Option<String>> {
        let run = id.to_owned();
        self.exec(move |db| message(db, &run, name)).await
    }
}

pub(super) const RUN: &str =
    "SELECT id, node, flow, action, entry, bundle, params, node_view, status, error,
    result, cancel, created_ms, ended_ms, resumes, downtime_ms, owner, fence, alive_ms FROM run";

pub(super) fn run_of_row(row: &Row<'_>) -> rusqlite::Result<RunRecord> {
    let status: String = row.get(8)?;
    let error: Option<String> = row.get(9)?;
    let result: Option<String> = row.get(10)?;
    Ok(RunRecord {
        id: row.get(0)?,
        node: row.get(1)?,
        flow: row.get(2)?,
        action: row.get(3)?,
        entry: row.get(4)?,
        bundle: row.get(5)?,
        params: json(&row.get::<_, String>(6)?),
        node_view: json(&row.get::<_, String>(7)?),
        status: RunStatus::parse(&status),
        error: error.and_then(|text| serde_json::from_str(&text).ok()),
        result: result.map(|text| json(&text)),
        cancel: row.get(11)?,
        created_ms: unsigned(row.get(12)?),
        ended_ms: row.get::<_, Option<i64>>(13)?.map(unsigned),
        resumes: row.get(14)?,
        downtime_ms: unsigned(row.get(15)?),
        owner: row.get(16)?,
        fence: unsigned(row.get(17)?),
        alive_ms: unsigned(row.get(18)?),
    })
}

fn load_run(db: &Connection, id: &str) -> rusqlite::Result<RunRecord> {
    db.query_row(&format!("{RUN} WHERE id = ?"), [id], run_of_row)
}

fn load_entries(db: &Connection, id: &str) -> rusqlite::Result<Vec<Entry>> {
    db.prepare_cached(
        "SELECT key, seq, name, class, site, args, args_hash, state, result, attempt, t0_ms,
         t1_ms, deadline_ms, downtime_ms FROM entry WHERE run = ? ORDER BY seq, key",
    )?
    .query_map([id], |row| {
        let state: String = row.get(7)?;
        let result: Option<String> = row.get(8)?;
        Ok(Entry {
            key: row.get(0)?,
            seq: unsigned(row.get(1)?),
            name: row.get(2)?,
            class: row.get(3)?,
            site: row.get(4)?,
            args: row.get(5)?,
            args_hash: row.get(6)?,
            state: EntryState::parse(&state),
            result: result.map(|text| json(&text)),
            attempt: row.get(9)?,
            t0_ms: unsigned(row.get(10)?),
            t1_ms: row.get::<_, Option<i64>>(11)?.map(unsigned),
            deadline_ms: row.get::<_, Option<i64>>(12)?.map(unsigned),
            downtime_ms: unsigned(row.get(13)?),
        })
    })?
    .collect()
}

/// Writes the row if the fence still holds; answers whether it did.
fn insert_entry(db: &Connection, run: &str, fence: u64, e: &Entry) -> rusqlite::Result<bool> {
    let written = db
        .prepare_cached(
            "INSERT OR REPLACE INTO entry (run, key, seq, name, class, site, args, args_hash,
             state, result, attempt, t0_ms, t1_ms, deadline_ms, downtime_ms, fence)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16
             FROM run WHERE id = ?1 AND fence = ?16",
        )?
        .execute(params![
            run,
            e.key,
            ms(e.seq),
            e.name,
            e.class,
            e.site,
            e.args,
            e.args_hash,
            e.state.as_str(),
            e.result.as_ref().map(Value::to_string),
            e.attempt,
            ms(e.t0_ms),
            e.t1_ms.map(ms),
            e.deadline_ms.map(ms),
            ms(e.downtime_ms),
            ms(fence)
        ])?;
    Ok(written > 0)
}

pub(super) fn save_bundle(db: &Connection, bundle: &Bundle) -> rusqlite::Result<()> {
    for (path, text) in &bundle.files {
        let hash = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(text.as_bytes()));
        db.execute(
            "INSERT OR IGNORE INTO blob (hash, body) VALUES (?, ?)",
            params![hash, text.as_bytes()],
        )?;
        db.execute(
            "INSERT OR IGNORE INTO bundle (hash, path, blob) VALUES (?, ?, ?)",
            params![bundle.hash, path, hash],
        )?;
    }
    Ok(())
}

fn holder(db: &Connection, node: &str) -> rusqlite::Result<Option<NodeOwner>> {
    db.query_row(
        "SELECT run.id, run.status, run.owner, run.alive_ms FROM node_lock
         JOIN run ON run.id = node_lock.run WHERE node_lock.node = ?",
        [node],
        owner_of_row,
    )
    .optional()
}

/// From id, status, owner and `alive_ms` of a run.
pub(super) fn owner_of_row(row: &Row<'_>) -> rusqlite::Result<NodeOwner> {
    let status: String = row.get(1)?;
    Ok(NodeOwner {
        run: row.get(0)?,
        status: RunStatus::parse(&status),
        owner: row.get(2)?,
        alive_ms: unsigned(row.get(3)?),
    })
}

fn message(db: &Connection, run: &str, name: &str) -> rusqlite::Result<Option<String>> {
    db.prepare_cached("SELECT body FROM inbox WHERE run = ? AND name = ?")?
        .query_row([run, name], |row| row.get(0))
        .optional()
}

pub(super) fn fenced(id: &str) -> Error {
    Error::new(Kind::Conflict, "this process no longer owns the run")
        .target(id)
        .hint("another process took it over; `flowrun show` tells which")
}

pub(super) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

/// SQLite has no unsigned integers; milliseconds and counts fit.
pub(super) fn ms(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_run(id: &str, node: &str) -> (NewRun, Bundle) {
        let run = NewRun {
            id: id.into(),
            node: node.into(),
            flow: "f".into(),
            action: "deploy".into(),
            entry: "f.lua".into(),
            params: serde_json::json!({}),
            node_view: serde_json::json!({}),
            owner: "host/1/1".into(),
        };
        let files = [("f.lua".to_owned(), "return 1".to_owned())].into();
        (
            run,
            Bundle {
                hash: "h".into(),
                files,
            },
        )
    }

    fn entry(key: &str, state: EntryState) -> Entry {
        Entry {
            key: key.into(),
            seq: 1,
            name: "ilo.set_power".into(),
            class: "effect".into(),
            site: "f.lua:3".into(),
            args: "{}".into(),
            args_hash: "x".into(),
            state,
            result: None,
            attempt: 1,
            t0_ms: 5,
            t1_ms: None,
            deadline_ms: None,
            downtime_ms: 0,
        }
    }

    #[tokio::test]
    async fn one_run_a_node_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let (run, bundle) = new_run("r1", "n");
        assert!(matches!(
            journal.create_run(run, bundle.clone()).await.unwrap(),
            NodeLock::Taken(_)
        ));
        let (second, _) = new_run("r2", "n");
        let NodeLock::Held(owner) = journal
            .create_run(second.clone(), bundle.clone())
            .await
            .unwrap()
        else {
            panic!("two runs on one node");
        };
        assert_eq!(owner.run, "r1");
        journal
            .end_run("r1", 1, RunStatus::Done, None, None)
            .await
            .unwrap();
        assert!(matches!(
            journal.create_run(second, bundle).await.unwrap(),
            NodeLock::Taken(_)
        ));
        assert_eq!(journal.bundle("h").await.unwrap().files.len(), 1);
    }

    #[tokio::test]
    async fn an_old_owner_cannot_write() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let (run, bundle) = new_run("r1", "n");
        journal.create_run(run, bundle).await.unwrap();
        journal
            .begin("r1", 1, entry("a", EntryState::Started))
            .await
            .unwrap();
        let taken = journal.take_over("r1", "host/2/2".into(), 1).await.unwrap();
        assert_eq!((taken.run.fence, taken.entries.len()), (2, 1));
        let refused = journal
            .begin("r1", 1, entry("b", EntryState::Started))
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), Kind::Conflict);
        journal.finish("r1", 1, entry("a", EntryState::Ok));
        assert_eq!(
            journal.entries("r1").await.unwrap()[0].state,
            EntryState::Started
        );
        assert_eq!(
            journal.heartbeat("r1", 1).await.unwrap_err().kind(),
            Kind::Conflict
        );
        assert!(!journal.heartbeat("r1", 2).await.unwrap());
        assert!(journal.take_over("r1", "host/3/3".into(), 1).await.is_err());
    }

    #[tokio::test]
    async fn the_first_message_of_a_name_stays() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        assert_eq!(
            journal
                .deliver("r", "callback", "one".into())
                .await
                .unwrap(),
            "one"
        );
        assert_eq!(
            journal
                .deliver("r", "callback", "two".into())
                .await
                .unwrap(),
            "one"
        );
        assert_eq!(
            journal.inbox("r", "callback").await.unwrap().as_deref(),
            Some("one")
        );
        assert_eq!(journal.inbox("r", "other").await.unwrap(), None);
    }
}
