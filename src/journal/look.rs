//! Runs as lists and numbers.

use super::record::{RunRecord, RunStatus};
use super::run::{RUN, run_of_row, unsigned};
use super::store::Journal;
use crate::error::Result;
use rusqlite::{OptionalExtension, params};
use std::collections::BTreeMap;

/// Which runs are meant.
#[derive(Debug, Clone)]
pub struct RunFilter {
    /// At most so many, newest first.
    pub limit: u32,
    /// With this status.
    pub status: Option<RunStatus>,
    /// On this node.
    pub node: Option<String>,
}

/// The runs in numbers.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Runs by status.
    pub by_status: BTreeMap<String, u64>,
    /// Runs that go on or are stopped, by the outermost step they are in.
    pub by_step: BTreeMap<String, u64>,
    /// When the oldest wait of those runs began, milliseconds since 1970.
    pub oldest_wait_ms: Option<u64>,
}

/// Runs that have not ended.
const OPEN: &str = "status IN ('running', 'stopped')";

impl Journal {
    /// The newest runs that fit, newest first.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn list_runs(&self, filter: RunFilter) -> Result<Vec<RunRecord>> {
        self.exec(move |db| {
            let sql = format!(
                "{RUN} WHERE (?1 IS NULL OR status = ?1) AND (?2 IS NULL OR node = ?2)
                 ORDER BY created_ms DESC, id DESC LIMIT ?3"
            );
            let status = filter.status.map(RunStatus::as_str);
            db.prepare_cached(&sql)?
                .query_map(params![status, filter.node, filter.limit], run_of_row)?
                .collect()
        })
        .await
    }

    /// The run of this id.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn run(&self, id: &str) -> Result<Option<RunRecord>> {
        let id = id.to_owned();
        self.exec(move |db| {
            db.prepare_cached(&format!("{RUN} WHERE id = ?"))?
                .query_row([id], run_of_row)
                .optional()
        })
        .await
    }

    /// The runs in numbers.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn counts(&self) -> Result<Counts> {
        self.exec(|db| {
            let counted = |sql: &str| -> rusqlite::Result<BTreeMap<String, u64>> {
                db.prepare_cached(sql)?
                    .query_map([], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?
                    .collect()
            };
            let oldest = format!(
                "SELECT min(t0_ms) FROM entry WHERE class = 'wait' AND state = 'started'
                 AND run IN (SELECT id FROM run WHERE {OPEN})"
            );
            Ok(Counts {
                by_status: counted("SELECT status, count(*) FROM run GROUP BY status")?,
                by_step: counted(&format!(
                    "SELECT key, count(*) FROM entry WHERE class = 'step' AND state = 'started'
                     AND instr(key, '/') = 0 AND run IN (SELECT id FROM run WHERE {OPEN})
                     GROUP BY key"
                ))?,
                oldest_wait_ms: db
                    .prepare_cached(&oldest)?
                    .query_row([], |row| row.get::<_, Option<i64>>(0))?
                    .map(unsigned),
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Bundle, Entry, EntryState, NewRun};

    fn entry(key: &str, class: &str, t0_ms: u64) -> Entry {
        Entry {
            key: key.into(),
            seq: t0_ms,
            name: class.into(),
            class: class.into(),
            site: String::new(),
            args: "{}".into(),
            args_hash: String::new(),
            state: EntryState::Started,
            result: None,
            attempt: 1,
            t0_ms,
            t1_ms: None,
            deadline_ms: None,
            downtime_ms: 0,
        }
    }

    async fn start(journal: &Journal, id: &str, node: &str) {
        let new = NewRun {
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
        let hash = "h".to_owned();
        journal
            .create_run(new, Bundle { hash, files })
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn runs_are_listed_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        for (id, node) in [("r1", "n1"), ("r2", "n2"), ("r3", "n3")] {
            start(&journal, id, node).await;
        }
        for (key, class, t0_ms) in [
            ("write image", "step", 1),
            ("write image/inner", "step", 2),
            ("write image/ramdisk.wait#1", "wait", 70),
        ] {
            journal.finish("r2", 1, entry(key, class, t0_ms));
        }
        journal.finish("r1", 1, entry("left open", "step", 1));
        journal.finish("r1", 1, entry("left open/ramdisk.wait#1", "wait", 5));
        journal
            .end_run(
                "r1",
                1,
                RunStatus::Failed,
                None,
                None,
                ("run_finished", "{}".into()),
            )
            .await
            .unwrap();
        let counts = journal.counts().await.unwrap();
        assert_eq!(
            counts.by_status,
            [("failed".into(), 1), ("running".into(), 2)].into()
        );
        assert_eq!(counts.by_step, [("write image".into(), 1)].into());
        assert_eq!(
            counts.oldest_wait_ms,
            Some(70),
            "that of a run that ended is none"
        );

        let ids = async |status, node: Option<&str>, limit| {
            let node = node.map(str::to_owned);
            let filter = RunFilter {
                limit,
                status,
                node,
            };
            let runs = journal.list_runs(filter).await.unwrap();
            runs.into_iter().map(|run| run.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(None, None, 9).await.len(), 3);
        assert_eq!(ids(None, None, 1).await.len(), 1);
        assert_eq!(ids(Some(RunStatus::Failed), None, 9).await, ["r1"]);
        assert_eq!(ids(Some(RunStatus::Running), Some("n3"), 9).await, ["r3"]);
        assert!(ids(Some(RunStatus::Failed), Some("n3"), 9).await.is_empty());
        let open = journal.open_runs().await.unwrap();
        assert_eq!(open.len(), 2);
        assert!(
            journal.run("r").await.unwrap().is_none(),
            "no beginnings of ids"
        );
        assert_eq!(journal.run("r3").await.unwrap().unwrap().node, "n3");
    }

    #[tokio::test]
    async fn what_a_run_tells_is_numbered_and_only_its_owner_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        start(&journal, "r1", "n1").await;
        start(&journal, "r2", "n2").await;
        let line = |text: &str| {
            serde_json::json!({ "event": "log", "t_ms": 1, "level": "info", "step": "s", "text": text })
                .to_string()
        };
        journal.tell("r1", 1, "run_started", "{}".into());
        journal.tell("r1", 1, "log", line("one"));
        journal.tell("r2", 1, "log", line("another run"));
        journal.tell("r1", 7, "log", line("not the owner"));
        let told = journal.told("r1", 0, 10).await.unwrap();
        assert_eq!(told.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(journal.told("r1", 1, 10).await.unwrap().len(), 1);
        assert_eq!(journal.told("r1", 0, 1).await.unwrap()[0].1, "{}");
        let logs = journal.logs("r1").await.unwrap();
        assert_eq!((logs.len(), logs[0].text.as_str()), (1, "one"));
    }
}
