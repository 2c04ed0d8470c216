//! What the journal keeps of nodes: which run holds them, and which certificate is theirs.

use super::record::{NodeOwner, Pin};
use super::run::{ms, owner_of_row, unsigned};
use super::store::Journal;
use crate::clock;
use crate::error::Result;
use rusqlite::{OptionalExtension, Row, params};
use std::collections::BTreeMap;

impl Journal {
    /// The nodes that a run holds, whether somebody works on it or not.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn node_owners(&self) -> Result<BTreeMap<String, NodeOwner>> {
        self.exec(|db| {
            db.prepare(
                "SELECT run.id, run.status, run.owner, run.alive_ms, node_lock.node FROM node_lock
                 JOIN run ON run.id = node_lock.run",
            )?
            .query_map([], |row| Ok((row.get(4)?, owner_of_row(row)?)))?
            .collect()
        })
        .await
    }

    /// Every pinned certificate by its node.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn pins(&self) -> Result<BTreeMap<String, Pin>> {
        self.exec(|db| {
            db.prepare("SELECT fingerprint, pinned_ms, node FROM pin")?
                .query_map([], |row| Ok((row.get(2)?, pin_of_row(row)?)))?
                .collect()
        })
        .await
    }

    /// The certificate that is pinned for this node.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn pin(&self, node: &str) -> Result<Option<Pin>> {
        let node = node.to_owned();
        self.exec(move |db| {
            db.prepare_cached("SELECT fingerprint, pinned_ms FROM pin WHERE node = ?")?
                .query_row([node], pin_of_row)
                .optional()
        })
        .await
    }

    /// Pins a certificate in place of the one before.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn set_pin(&self, node: &str, fingerprint: String) -> Result<()> {
        let node = node.to_owned();
        self.exec(move |db| {
            db.execute(
                "INSERT OR REPLACE INTO pin (node, fingerprint, pinned_ms) VALUES (?,?,?)",
                params![node, fingerprint, ms(clock::unix_ms())],
            )
            .map(|_| ())
        })
        .await
    }

    /// Forgets the pinned certificate; answers it, if there was one.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn forget_pin(&self, node: &str) -> Result<Option<Pin>> {
        let node = node.to_owned();
        self.exec(move |db| {
            db.prepare("DELETE FROM pin WHERE node = ? RETURNING fingerprint, pinned_ms")?
                .query_row([node], pin_of_row)
                .optional()
        })
        .await
    }
}

fn pin_of_row(row: &Row<'_>) -> rusqlite::Result<Pin> {
    Ok(Pin {
        fingerprint: row.get(0)?,
        pinned_ms: unsigned(row.get(1)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_journal_from_before_pins_takes_them() {
        let dir = tempfile::tempdir().unwrap();
        let old = rusqlite::Connection::open(dir.path().join("journal.db")).unwrap();
        old.execute_batch(include_str!("schema.sql")).unwrap();
        drop(old);
        let journal = Journal::open(dir.path()).unwrap();
        journal.set_pin("n", "AA".into()).await.unwrap();
        journal.set_pin("n", "BB".into()).await.unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let pin = journal.pin("n").await.unwrap().unwrap();
        assert_eq!(pin.fingerprint, "BB");
        assert_eq!(journal.pins().await.unwrap()["n"], pin);
        assert_eq!(journal.forget_pin("n").await.unwrap(), Some(pin));
        assert_eq!(journal.forget_pin("n").await.unwrap(), None);
        assert_eq!(journal.pin("n").await.unwrap(), None);
    }
}
