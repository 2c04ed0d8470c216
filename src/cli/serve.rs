//! `serve`: the daemon. It resumes what is open, takes runs by HTTP, and stops resumable.

use super::args::{Cli, Serve, ServeCommand};
use super::site::Ground;
use super::{Exit, format};
use crate::api::renewal::Renewal;
use crate::api::{self, Api, listener};
use crate::catalogue::{Catalogue, Times};
use crate::cli::output::out;
use crate::config::Days;
use crate::engine::is_alive;
use crate::error::{Error, Kind, Result};
use crate::journal::{Journal, RunRecord, RunStatus};
use crate::lua::LuaRuntime;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How long the runs may take to stop: a write in flight ends, sessions are closed.
const STOP: Duration = Duration::from_secs(30);
/// How long answers under way may take after that.
const GRACE: Duration = Duration::from_secs(5);
/// How often runs are looked for that are to be forgotten.
const FORGET: Duration = Duration::from_secs(3600);
/// How often certificate and key are looked at. They are small, and whoever renews them need not
/// tell us.
const RENEWED: Duration = Duration::from_secs(30);

pub(super) async fn serve(cli: &Cli, args: &Serve) -> Result<Exit> {
    if let Some(ServeCommand::Token) = args.command {
        return token();
    }
    let no_signals = |e| Error::new(Kind::Io, "no signals").caused_by(&e);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(no_signals)?;
    let ground = Ground::open(cli, &[], &[]).await?;
    let address = args.listen.or(ground.config.api.listen).ok_or_else(|| {
        Error::new(Kind::Invalid, "there is no address to listen on")
            .hint("[api] listen = \"0.0.0.0:6385\", or --listen")
    })?;
    let runtime = LuaRuntime::new(ground.registry.clone());
    let journal = ground.engine.journal().clone();
    let site = &ground.config.site;
    let flows = Catalogue::open(site, Times::default(), runtime, journal).await?;
    let api = ground.api()?.with_flows(flows);
    // Listening comes first: a ramdisk may call for a run that is resumed just then, and what it
    // says is kept in the journal.
    let server = listener::listen_for_all(&ground.config, &api, address)?;
    let resumed = resume_all(&ground, &api).await?;
    eprintln!("listening on {}; {resumed} runs resumed", server.address());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = Renewal::new(&ground.config.api, &server).follow(RENEWED, &mut hangup) => {}
        () = forget(ground.engine.journal(), ground.config.site.keep_runs_days) => {}
    }
    eprintln!("stopping; open runs go on when `flowrun serve` is started again");
    let (stopped, ()) = tokio::join!(api.stop(STOP), server.stop(GRACE));
    if !stopped {
        tracing::warn!("not every run stopped in time; they are resumed as after a crash");
    }
    ground.engine.journal().sync().await?;
    Ok(Exit::Done)
}

/// Takes over the runs that nobody works on; answers how many.
async fn resume_all(ground: &Ground, api: &Api) -> Result<usize> {
    let abandoned =
        |run: &RunRecord| run.status == RunStatus::Stopped || !is_alive(&run.owner, run.alive_ms);
    let open = ground.engine.journal().open_runs().await?;
    let mut resumed = 0;
    for run in open.into_iter().filter(abandoned) {
        let (id, node) = (run.id.clone(), run.node.clone());
        match ground.engine.resume(run, false).await {
            Ok(started) => {
                api.keep(started);
                resumed += 1;
            }
            // The others are not to wait for it.
            Err(error) => tracing::error!(run = id, node, %error, "not resumed"),
        }
    }
    Ok(resumed)
}

/// Forgets runs of long ago, if they are not to be kept for ever.
async fn forget(journal: &Journal, Days(days): Days) {
    match days {
        0 => std::future::pending().await,
        days => {
            let kept = Duration::from_secs(u64::from(days) * 86_400);
            journal.keep_forgetting(kept, FORGET).await;
        }
    }
}

/// The token alone goes to standard output, so that it can be sent to a file.
fn token() -> Result<Exit> {
    let (token, hash) = api::make_token()?;
    out!("{}", token.expose());
    let note = format::paint("for flowrun.toml:", "36", format::colours());
    eprintln!("{note}\n[api]\ntoken_sha256 = [\"{hash}\"]");
    Ok(Exit::Done)
}
