//! What runs told, kept in the order they told it: a follower that lost its connection, or came
//! late, reads on where it was.

use super::record::LogLine;
use super::run::{ms, unsigned};
use super::store::Journal;
use crate::error::Result;
use rusqlite::{Connection, params};

impl Journal {
    /// Appends what a run tells, soon; nothing if the run has another owner.
    pub fn tell(&self, id: &str, fence: u64, name: &'static str, body: String) {
        let run = id.to_owned();
        self.post("event", move |db| append(db, &run, fence, name, &body));
    }

    /// What a run told after its event `after`: at most `limit` numbers and JSON texts. Whatever
    /// was told before this is asked is in it, and on disk.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn told(&self, id: &str, after: u64, limit: u32) -> Result<Vec<(u64, String)>> {
        let run = id.to_owned();
        self.exec(move |db| {
            db.prepare_cached(
                "SELECT seq, body FROM event WHERE run = ? AND seq > ? ORDER BY seq LIMIT ?",
            )?
            .query_map(params![run, ms(after), limit], |row| {
                Ok((unsigned(row.get(0)?), row.get(1)?))
            })?
            .collect()
        })
        .await
    }

    /// A run's log.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn logs(&self, id: &str) -> Result<Vec<LogLine>> {
        let lines = self.told_of(id, "log").await?;
        let read = |line: &String| serde_json::from_str(line).ok();
        Ok(lines.iter().filter_map(read).collect())
    }

    /// The JSON texts of a run's events of this name.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn told_of(&self, id: &str, name: &'static str) -> Result<Vec<String>> {
        let run = id.to_owned();
        self.exec(move |db| {
            db.prepare_cached("SELECT body FROM event WHERE run = ? AND name = ? ORDER BY seq")?
                .query_map([run.as_str(), name], |row| row.get(0))?
                .collect()
        })
        .await
    }
}

pub(super) fn append(
    db: &Connection,
    run: &str,
    fence: u64,
    name: &str,
    body: &str,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO event SELECT ?1,
         1 + coalesce((SELECT max(seq) FROM event WHERE run = ?1), 0), ?2, ?3
         FROM run WHERE id = ?1 AND fence = ?4",
    )?
    .execute(params![run, name, body, ms(fence)])
    .map(|_| ())
}
