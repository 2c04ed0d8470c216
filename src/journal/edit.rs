//! What the journal keeps of edits of the flows: what is good, and what was broken.

use super::record::{Bundle, RunRecord};
use super::run::{RUN, json, ms, run_of_row, save_bundle, unsigned};
use super::store::Journal;
use crate::error::Result;
use rusqlite::{OptionalExtension, Row, params};
use serde_json::Value;

/// How many edits are kept.
const KEPT: u32 = 100;

/// A state of the flow folders.
#[derive(Debug, Clone, PartialEq)]
pub struct Edit {
    /// When it was seen, milliseconds since 1970.
    pub t_ms: u64,
    /// Content hash of all flows that new runs can take.
    pub version: String,
    /// These flows with the hashes of their bundles.
    pub flows: Value,
    /// What is wrong with what is in the folders, if it is not these flows.
    pub broken: Option<Value>,
}

impl Journal {
    /// Keeps a state with its bundles, durably.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn record_edit(&self, edit: Edit, bundles: Vec<Bundle>) -> Result<()> {
        self.exec(move |db| {
            bundles
                .iter()
                .try_for_each(|bundle| save_bundle(db, bundle))?;
            db.execute(
                "INSERT INTO edit (t_ms, version, flows, broken) VALUES (?,?,?,?)",
                params![
                    ms(edit.t_ms),
                    edit.version,
                    edit.flows.to_string(),
                    edit.broken.map(|broken| broken.to_string())
                ],
            )?;
            db.execute(
                "DELETE FROM edit WHERE seq <= (SELECT max(seq) FROM edit) - ?",
                [KEPT],
            )
            .map(|_| ())
        })
        .await
    }

    /// The newest state.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn last_edit(&self) -> Result<Option<Edit>> {
        self.edit("").await
    }

    /// The newest one that was broken.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn last_broken_edit(&self) -> Result<Option<Edit>> {
        self.edit("WHERE broken IS NOT NULL").await
    }

    async fn edit(&self, condition: &'static str) -> Result<Option<Edit>> {
        self.exec(move |db| {
            let sql = format!(
                "SELECT t_ms, version, flows, broken FROM edit {condition} ORDER BY seq DESC LIMIT 1"
            );
            db.query_row(&sql, [], edit_of_row).optional()
        })
        .await
    }

    /// The runs that go on or can be resumed, oldest first.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn open_runs(&self) -> Result<Vec<RunRecord>> {
        self.exec(|db| {
            let sql =
                format!("{RUN} WHERE status IN ('running', 'stopped') ORDER BY created_ms, id");
            db.prepare(&sql)?.query_map([], run_of_row)?.collect()
        })
        .await
    }
}

fn edit_of_row(row: &Row<'_>) -> rusqlite::Result<Edit> {
    let broken: Option<String> = row.get(3)?;
    Ok(Edit {
        t_ms: unsigned(row.get(0)?),
        version: row.get(1)?,
        flows: json(&row.get::<_, String>(2)?),
        broken: broken.map(|text| json(&text)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_edit_and_the_newest_broken_one_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.last_edit().await.unwrap(), None);
        let edit = |n: u64, broken: Option<&str>| Edit {
            t_ms: n,
            version: "v".into(),
            flows: Value::Null,
            broken: broken.map(Value::from),
        };
        for n in 0..150 {
            let broken = (n == 120).then_some("x");
            let recorded = journal.record_edit(edit(n, broken), Vec::new());
            recorded.await.unwrap();
        }
        assert_eq!(journal.last_edit().await.unwrap(), Some(edit(149, None)));
        let broken = journal.last_broken_edit().await.unwrap();
        assert_eq!(broken, Some(edit(120, Some("x"))));
        let count = "SELECT count(*) FROM edit";
        let kept = journal.exec(move |db| db.query_row(count, [], |row| row.get::<_, u32>(0)));
        assert_eq!(kept.await.unwrap(), KEPT);
    }
}
