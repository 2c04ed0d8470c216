//! Which nodes hold which shared boot ISO, and who may change one.

use super::record::NodeOwner;
use super::run::{ms, owner_of_row};
use super::store::Journal;
use crate::clock;
use crate::error::Result;
use rusqlite::{Connection, OptionalExtension, params};

impl Journal {
    /// Takes the lock of an ISO for a run: if it is free, if it is the run's already, if its run
    /// has ended, or away from `from`, a run whose owner died. Answers whose it is, if not ours.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn lock_boot_iso(
        &self,
        name: &str,
        run: &str,
        from: Option<String>,
    ) -> Result<Option<NodeOwner>> {
        let (name, run) = (name.to_owned(), run.to_owned());
        self.exec(move |db| {
            let holder = db
                .prepare_cached(
                    "SELECT run.id, run.status, run.owner, run.alive_ms FROM boot_iso_lock
                     JOIN run ON run.id = boot_iso_lock.run WHERE name = ?",
                )?
                .query_row([&name], owner_of_row)
                .optional()?;
            let others = holder.filter(|holder| {
                holder.run != run && !holder.status.is_final() && from.as_ref() != Some(&holder.run)
            });
            if others.is_none() {
                db.prepare_cached("INSERT OR REPLACE INTO boot_iso_lock VALUES (?,?)")?
                    .execute([&name, &run])?;
            }
            Ok(others)
        })
        .await
    }

    /// Gives the lock back.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn unlock_boot_iso(&self, name: &str, run: &str) -> Result<()> {
        let (name, run) = (name.to_owned(), run.to_owned());
        self.exec(move |db| {
            db.execute(
                "DELETE FROM boot_iso_lock WHERE name = ? AND run = ?",
                [name, run],
            )
            .map(drop)
        })
        .await
    }

    /// Notes that a node holds an ISO; answers how many do now.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn hold_boot_iso(&self, name: &str, node: &str, run: &str) -> Result<u64> {
        let (name, node, run) = (name.to_owned(), node.to_owned(), run.to_owned());
        self.exec(move |db| {
            db.prepare_cached("INSERT OR IGNORE INTO boot_iso VALUES (?,?,?,?)")?
                .execute(params![name, node, run, ms(clock::unix_ms())])?;
            Ok(holders(db, &name)?.len() as u64)
        })
        .await
    }

    /// Forgets that a node holds an ISO.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn drop_boot_iso(&self, name: &str, node: &str) -> Result<()> {
        let (name, node) = (name.to_owned(), node.to_owned());
        self.exec(move |db| {
            db.execute(
                "DELETE FROM boot_iso WHERE name = ? AND node = ?",
                [name, node],
            )
            .map(drop)
        })
        .await
    }

    /// The ISOs that a node holds.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn boot_isos_of(&self, node: &str) -> Result<Vec<String>> {
        let node = node.to_owned();
        self.exec(move |db| {
            db.prepare_cached("SELECT name FROM boot_iso WHERE node = ? ORDER BY t_ms, name")?
                .query_map([node], |row| row.get(0))?
                .collect()
        })
        .await
    }

    /// The nodes that hold an ISO.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn boot_iso_holders(&self, name: &str) -> Result<Vec<String>> {
        let name = name.to_owned();
        self.exec(move |db| holders(db, &name)).await
    }

    /// What tells this journal from those of other sites.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn site_id(&self) -> Result<String> {
        self.exec(|db| db.query_row("SELECT id FROM site", [], |row| row.get(0)))
            .await
    }
}

fn holders(db: &Connection, name: &str) -> rusqlite::Result<Vec<String>> {
    db.prepare_cached("SELECT node FROM boot_iso WHERE name = ? ORDER BY node")?
        .query_map([name], |row| row.get(0))?
        .collect()
}
