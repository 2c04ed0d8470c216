//! The thread that owns the database.

use crate::error::{Error, Kind, Result};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce(&Connection) -> Finish + Send>;
type Finish = Box<dyn FnOnce(Result<()>) + Send>;

/// Jobs that share one flush at most.
const GROUP: usize = 512;

/// A handle to the journal; cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    jobs: mpsc::Sender<Job>,
    path: PathBuf,
}

impl Journal {
    /// Opens `journal.db` in `state_dir`, creating both.
    ///
    /// # Errors
    /// `io` if the directory or file cannot be used, `corrupt` if it is not our database.
    pub fn open(state_dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(state_dir)
            .map_err(|e| Error::io(state_dir, "create the state directory", &e))?;
        Self::over(state_dir.join("journal.db"))
    }

    /// A journal that no other process sees and that ends with its last handle.
    ///
    /// # Errors
    /// `io` if there is no memory or thread for it.
    pub fn in_memory() -> Result<Self> {
        Self::over(PathBuf::from(":memory:"))
    }

    fn over(path: PathBuf) -> Result<Self> {
        let connection = connect(&path).map_err(|e| database(&path, &e))?;
        let (jobs, queue) = mpsc::channel();
        std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || work(&connection, &queue))
            .map_err(|e| Error::io(&path, "start the journal's thread", &e))?;
        Ok(Self { jobs, path })
    }

    /// Where the database is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `query` and waits until what it wrote is on disk.
    pub(super) async fn exec<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let path = self.path.clone();
        self.submit(Box::new(move |connection| {
            let outcome = query(connection).map_err(|e| database(&path, &e));
            Box::new(move |committed| {
                drop(reply.send(committed.and(outcome)));
            })
        }))?;
        answer.await.map_err(|_| gone())?
    }

    /// Runs `query` soon; what it writes is on disk when a later [`Self::exec`] returns.
    pub(super) fn post(
        &self,
        what: &'static str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static,
    ) {
        let job: Job = Box::new(move |connection| {
            let outcome = query(connection);
            Box::new(move |committed| match (outcome, committed) {
                (Err(error), _) => tracing::error!(what, %error, "journal write failed"),
                (_, Err(error)) => tracing::error!(what, %error, "journal commit failed"),
                _ => {}
            })
        });
        if let Err(error) = self.submit(job) {
            tracing::error!(what, %error, "journal write lost");
        }
    }

    /// Waits until everything posted so far is on disk.
    ///
    /// # Errors
    /// `internal` if the journal's thread has ended.
    pub async fn sync(&self) -> Result<()> {
        self.exec(|_| Ok(())).await
    }

    fn submit(&self, job: Job) -> Result<()> {
        self.jobs.send(job).map_err(|_| gone())
    }
}

fn gone() -> Error {
    Error::new(Kind::Internal, "the journal's thread has ended")
}

fn database(path: &Path, error: &rusqlite::Error) -> Error {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseCorrupt, DiskFull, NotADatabase};
    let kind = match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => Kind::Corrupt,
        Some(DiskFull) => Kind::Limit,
        Some(DatabaseBusy) => Kind::Conflict,
        _ => Kind::Io,
    };
    Error::new(kind, format!("journal: {error}")).target(path.display().to_string())
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(20))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.execute_batch(include_str!("schema.sql"))?;
    connection.execute_batch(include_str!("pin.sql"))?;
    connection.execute_batch(include_str!("edit.sql"))?;
    connection.execute_batch(include_str!("learned.sql"))?;
    Ok(connection)
}

fn work(connection: &Connection, queue: &mpsc::Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let begun = connection.execute_batch("BEGIN IMMEDIATE");
        let mut finish = vec![first(connection)];
        while finish.len() < GROUP {
            let Ok(job) = queue.try_recv() else { break };
            finish.push(job(connection));
        }
        let committed = begun.and_then(|()| connection.execute_batch("COMMIT"));
        let committed =
            committed.map_err(|error| Error::new(Kind::Io, format!("journal: {error}")));
        if committed.is_err() {
            drop(connection.execute_batch("ROLLBACK"));
        }
        for each in finish {
            each(committed.clone());
        }
    }
}
