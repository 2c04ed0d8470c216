//! Runs of long ago are forgotten.

use super::run::ms;
use super::store::Journal;
use crate::clock;
use crate::error::Result;
use rusqlite::{Connection, params};
use std::time::Duration;

/// What is kept by run.
const OF_RUN: [&str; 6] = [
    "entry",
    "event",
    "inbox",
    "expect",
    "session",
    "boot_iso_lock",
];

/// How many are forgotten at a time; others have their turn at the journal in between.
const AT_ONCE: u32 = 50;

impl Journal {
    /// Forgets runs that ended longer ago than they are `kept`; looks for them so `often`, for
    /// ever.
    pub async fn keep_forgetting(&self, kept: Duration, often: Duration) {
        let kept_ms = u64::try_from(kept.as_millis()).unwrap_or(u64::MAX);
        loop {
            let before_ms = clock::unix_ms().saturating_sub(kept_ms);
            match self.forget_runs(before_ms, AT_ONCE).await {
                Ok(count) if count > 0 => {
                    tracing::info!(count, ?kept, "runs of long ago are forgotten");
                    continue;
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "runs of long ago are not forgotten"),
            }
            tokio::time::sleep(often).await;
        }
    }

    /// Forgets at most `limit` runs that ended before `before_ms`, with all they told, and the
    /// flows that nothing else refers to; answers how many. What they learned about their nodes
    /// stays, and so does the last run of each node.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn forget_runs(&self, before_ms: u64, limit: u32) -> Result<usize> {
        self.exec(move |db| {
            let runs = db
                .prepare(
                    "SELECT id FROM run WHERE ended_ms < ?
                     AND status NOT IN ('running', 'stopped')
                     AND id NOT IN (SELECT run FROM node_lock)
                     AND EXISTS (SELECT 1 FROM run AS later WHERE later.node = run.node
                                 AND later.created_ms > run.created_ms)
                     ORDER BY ended_ms LIMIT ?",
                )?
                .query_map(params![ms(before_ms), limit], |row| row.get(0))?
                .collect::<rusqlite::Result<Vec<String>>>()?;
            for run in &runs {
                for table in OF_RUN {
                    db.prepare_cached(&format!("DELETE FROM {table} WHERE run = ?"))?
                        .execute([run])?;
                }
                db.prepare_cached("DELETE FROM run WHERE id = ?")?
                    .execute([run])?;
            }
            if !runs.is_empty() {
                forget_bundles(db)?;
            }
            Ok(runs.len())
        })
        .await
    }
}

/// Those of no run and of none of the editions that are kept.
fn forget_bundles(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(
        "DELETE FROM bundle WHERE hash NOT IN (SELECT bundle FROM run)
         AND hash NOT IN (SELECT json_extract(flow.value, '$.version')
                          FROM edit, json_each(edit.flows) AS flow
                          WHERE json_extract(flow.value, '$.version') IS NOT NULL);
         DELETE FROM blob WHERE hash NOT IN (SELECT blob FROM bundle);",
    )
}

#[cfg(test)]
mod tests {
    use super::super::{Bundle, Edit, NewRun, NodeLock, RunFilter, RunStatus};
    use super::*;
    use serde_json::{Value, json};

    async fn run(journal: &Journal, id: &str, node: &str, flow: &str, ended: bool) {
        let new = NewRun {
            id: id.into(),
            node: node.into(),
            flow: flow.into(),
            action: "deploy".into(),
            entry: "f.lua".into(),
            params: Value::Null,
            node_view: Value::Null,
            owner: "test".into(),
        };
        let lock = journal.create_run(new, bundle(flow)).await.unwrap();
        assert!(matches!(lock, NodeLock::Taken(_)));
        journal.tell(id, 1, "log", "{}".into());
        if ended {
            let last = ("run_finished", "{}".to_owned());
            let ended = journal.end_run(id, 1, RunStatus::Done, None, None, last);
            ended.await.unwrap();
        }
    }

    fn bundle(flow: &str) -> Bundle {
        Bundle {
            hash: flow.into(),
            files: [("f.lua".to_owned(), flow.to_owned())].into(),
        }
    }

    fn every() -> RunFilter {
        RunFilter {
            limit: 100,
            status: None,
            node: None,
        }
    }

    async fn count(journal: &Journal, table: &'static str) -> u32 {
        let sql = format!("SELECT count(*) FROM {table}");
        let count = journal.exec(move |db| db.query_row(&sql, [], |row| row.get(0)));
        count.await.unwrap()
    }

    /// As if the runs had ended at the beginning of time, in the order of their names.
    async fn age(journal: &Journal) {
        // Rows of the same millisecond have no order.
        let age = "UPDATE run SET created_ms = id, ended_ms = CASE WHEN ended_ms THEN id END";
        let aged = journal.exec(move |db| db.execute(age, []));
        aged.await.unwrap();
    }

    #[tokio::test]
    async fn runs_are_forgotten_as_they_age_while_a_daemon_runs() {
        let journal = Journal::in_memory().unwrap();
        let day = Duration::from_secs(86_400);
        let forgetting = journal.keep_forgetting(day, Duration::from_millis(1));
        let growing_old = async {
            // Twice: what is looked at once only is seen the first time.
            for turn in [0, 100] {
                let runs = (turn + 1)..=(turn + AT_ONCE + 10);
                for id in runs {
                    run(&journal, &id.to_string(), "a", "f", true).await;
                }
                age(&journal).await;
                while count(&journal, "run").await > 1 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        };
        tokio::select! {
            () = forgetting => unreachable!("it goes on"),
            () = growing_old => {}
            () = tokio::time::sleep(Duration::from_secs(120)) => panic!("they were kept"),
        }
        let left = journal.list_runs(every()).await.unwrap();
        assert_eq!(left[0].id, "160", "the last of its node");
    }

    #[tokio::test]
    async fn what_ended_long_ago_is_forgotten_and_nothing_else() {
        let journal = Journal::in_memory().unwrap();
        let edit = Edit {
            t_ms: 1,
            version: "all".into(),
            flows: json!([{ "name": "edited", "version": "edited" }, { "name": "x" }]),
            broken: None,
        };
        let recorded = journal.record_edit(edit, vec![bundle("edited")]);
        recorded.await.unwrap();
        for (id, node, flow, ended) in [
            ("1", "a", "old", true),
            ("2", "a", "old", true),
            ("3", "b", "other", true),
            ("4", "a", "new", true),
            ("5", "c", "new", false),
        ] {
            run(&journal, id, node, flow, ended).await;
            age(&journal).await;
        }
        assert_eq!(
            journal.forget_runs(1, 10).await.unwrap(),
            0,
            "none is as old"
        );
        assert_eq!(
            journal.forget_runs(100, 1).await.unwrap(),
            1,
            "one at a time"
        );
        assert_eq!(journal.forget_runs(100, 10).await.unwrap(), 1);
        assert_eq!(journal.forget_runs(100, 10).await.unwrap(), 0);
        let left = journal.list_runs(every()).await.unwrap();
        let mut left: Vec<_> = left.iter().map(|run| run.id.as_str()).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            ["3", "4", "5"],
            "the last of each node, and what goes on"
        );
        assert_eq!(count(&journal, "event").await, 5);
        for (hash, kept) in [
            ("old", false),
            ("other", true),
            ("new", true),
            ("edited", true),
        ] {
            let found = journal.bundle(hash).await;
            assert_eq!(found.is_ok_and(|b| !b.files.is_empty()), kept, "{hash}");
        }
        assert_eq!(count(&journal, "blob").await, 3);
    }
}
