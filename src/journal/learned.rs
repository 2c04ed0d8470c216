//! What runs learned about their nodes.

use super::run::{fenced, ms, unsigned};
use super::store::Journal;
use crate::clock;
use crate::error::Result;
use rusqlite::{Connection, params};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A fact, and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// The fact.
    pub value: Value,
    /// The run that learned it.
    pub run: String,
    /// When, milliseconds since 1970.
    pub t_ms: u64,
}

impl Journal {
    /// Keeps facts by path (`instance_info.boot_iso`); absent ones are forgotten.
    ///
    /// # Errors
    /// `conflict` if the run has another owner now.
    pub async fn learn(
        &self,
        run: &str,
        fence: u64,
        node: &str,
        facts: BTreeMap<String, Option<Value>>,
    ) -> Result<()> {
        let (id, node) = (run.to_owned(), node.to_owned());
        let is_owner = self
            .exec(move |db| {
                let mut owner =
                    db.prepare_cached("SELECT 1 FROM run WHERE id = ? AND fence = ?")?;
                if !owner.exists(params![id, ms(fence)])? {
                    return Ok(false);
                }
                for (path, value) in facts {
                    match value {
                        Some(value) => db
                            .prepare_cached("INSERT OR REPLACE INTO learned VALUES (?,?,?,?,?)")?
                            .execute(params![
                                node,
                                path,
                                value.to_string(),
                                id,
                                ms(clock::unix_ms())
                            ])?,
                        None => db
                            .prepare_cached("DELETE FROM learned WHERE node = ? AND path = ?")?
                            .execute([&node, &path])?,
                    };
                }
                Ok(true)
            })
            .await?;
        if is_owner { Ok(()) } else { Err(fenced(run)) }
    }

    /// All that is known of a node, by path.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn learned(&self, node: &str) -> Result<BTreeMap<String, Learned>> {
        let node = node.to_owned();
        self.exec(move |db| load(db, &node)).await
    }
}

pub(super) fn load(db: &Connection, node: &str) -> rusqlite::Result<BTreeMap<String, Learned>> {
    db.prepare_cached("SELECT path, value, run, t_ms FROM learned WHERE node = ?")?
        .query_map([node], |row| {
            let value: String = row.get(1)?;
            let learned = Learned {
                value: serde_json::from_str(&value).unwrap_or_default(),
                run: row.get(2)?,
                t_ms: unsigned(row.get(3)?),
            };
            Ok((row.get(0)?, learned))
        })?
        .collect()
}

/// Lays facts over a node as the inventory has it.
pub fn lay_over(view: &mut Value, facts: &BTreeMap<String, Learned>) {
    for (path, learned) in facts {
        let mut at = &mut *view;
        for key in path.split('.') {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            let Some(fields) = at.as_object_mut() else {
                return;
            };
            at = fields.entry(key).or_insert(Value::Null);
        }
        *at = learned.value.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::journal::{Bundle, NewRun, NodeLock};
    use serde_json::json;

    fn new_run(id: &str) -> NewRun {
        NewRun {
            id: id.into(),
            node: "n".into(),
            flow: "f".into(),
            action: "a".into(),
            entry: "f.lua".into(),
            params: json!({}),
            node_view: json!({ "name": "n", "instance_info": { "root_gb": 2, "boot_iso": "old" } }),
            owner: "o".into(),
        }
    }

    #[tokio::test]
    async fn what_a_run_learned_the_next_one_sees() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let bundle = Bundle {
            hash: "h".into(),
            files: BTreeMap::new(),
        };
        let start = async |id: &str| match journal.create_run(new_run(id), bundle.clone()).await {
            Ok(NodeLock::Taken(view)) => view,
            other => panic!("{other:?}"),
        };
        let end = async |id: &str| {
            let done = crate::journal::RunStatus::Done;
            journal.end_run(id, 1, done, None, None).await.unwrap();
        };
        assert_eq!(start("r1").await["instance_info"]["boot_iso"], "old");
        let facts = |list: &[(&str, Value)]| {
            let facts = list.iter().cloned();
            facts
                .map(|(path, v)| (path.to_owned(), Some(v).filter(|v| !v.is_null())))
                .collect()
        };
        let told = facts(&[
            ("provision_state", json!("active")),
            ("instance_info.boot_iso", json!("swift:c/boot-1")),
        ]);
        journal.learn("r1", 1, "n", told).await.unwrap();
        let stale = journal.learn("r1", 0, "n", facts(&[("x", json!(1))])).await;
        assert_eq!(stale.unwrap_err().kind(), Kind::Conflict);
        end("r1").await;
        let view = start("r2").await;
        assert_eq!(view["provision_state"], "active");
        assert_eq!(
            view["instance_info"],
            json!({ "root_gb": 2, "boot_iso": "swift:c/boot-1" })
        );
        let forget = facts(&[("instance_info.boot_iso", Value::Null)]);
        journal.learn("r2", 1, "n", forget).await.unwrap();
        assert_eq!(
            journal.learned("n").await.unwrap()["provision_state"].run,
            "r1"
        );
        end("r2").await;
        assert_eq!(start("r3").await["instance_info"]["boot_iso"], "old");
    }
}
