//! Networks and peers that fail.

use super::*;

/// Forwards to `port` until `limit` bytes went there, then stops: closed, or just silent.
async fn bad_network(port: u16, limit: usize, silent: bool) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut here, _) = listener.accept().await.unwrap();
        let mut there = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (mut from_here, mut to_here) = here.split();
        let (mut from_there, mut to_there) = there.split();
        let forth = async {
            let mut left = limit;
            let mut buffer = vec![0; 64 * 1024];
            while left > 0 {
                let most = left.min(buffer.len());
                let count = from_here.read(&mut buffer[..most]).await.unwrap();
                if count == 0 || to_there.write_all(&buffer[..count]).await.is_err() {
                    break;
                }
                left -= count;
            }
            if silent {
                std::future::pending::<()>().await;
            }
        };
        let back = async {
            tokio::io::copy(&mut from_there, &mut to_here).await.ok();
            std::future::pending::<()>().await;
        };
        tokio::select! { () = forth => {}, () = back => {} }
    });
    (address.port(), tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_fails_all_that_wait() {
    let ours = Ours::start(|_| {}).await;
    let (port, _network) = bad_network(ours.port(), 5 << 20, false).await;
    let session = Session::login(options(port)).await.unwrap();
    let mut writes = JoinSet::new();
    for i in 0..8 {
        let session = session.clone();
        writes.spawn(async move { session.write(i * 2048, pattern(MIB, i)).await });
    }
    let all = tokio::time::timeout(Duration::from_secs(10), writes.join_all()).await;
    let errors: Vec<_> = all.unwrap().into_iter().filter_map(Result::err).collect();
    assert!(errors.len() >= 3, "{errors:?}");
    for error in errors {
        assert!(error.is_retryable(), "{error}");
        assert_eq!(kind(error), Kind::Unreachable);
    }
    // What comes later fails at once, with the same cause.
    let late = session.flush().await.unwrap_err();
    assert_eq!(kind(late), Kind::Unreachable);
    assert!(session.logout().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_network_is_given_up_at_the_deadline() {
    let ours = Ours::start(|_| {}).await;
    let (port, _network) = bad_network(ours.port(), 3 << 20, true).await;
    let mut login = options(port);
    login.command_timeout = Duration::from_millis(400);
    let session = Session::login(login).await.unwrap();
    let write = session.write(0, pattern(16 * MIB, 1));
    let error = tokio::time::timeout(Duration::from_secs(10), write)
        .await
        .unwrap()
        .unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(kind(error), Kind::Timeout);

    // A portal that accepts and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut login = options(listener.local_addr().unwrap().port());
    login.login_timeout = Duration::from_millis(200);
    let error = Session::login(login).await.unwrap_err();
    assert_eq!(kind(error), Kind::Timeout);
    let portal = listener.local_addr().unwrap().to_string();
    let error = discover(&portal, ME, None, Duration::from_millis(200))
        .await
        .unwrap_err();
    assert_eq!(kind(error), Kind::Timeout);
    drop(listener);
    let error = discover(&portal, ME, None, Duration::from_secs(5))
        .await
        .unwrap_err();
    assert_eq!(kind(error), Kind::Unreachable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_of_the_target_is_seen() {
    let ours = Ours::start(|_| {}).await;
    let session = Session::login(options(ours.port())).await.unwrap();
    session.write(0, pattern(MIB, 1)).await.unwrap();
    drop(ours.target);
    wait_for("the end of the connection", async || {
        session.flush().await.is_err()
    })
    .await;
    let error = session.write(0, pattern(512, 1)).await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(kind(error), Kind::Unreachable);
}

/// A script that takes `acts` one by one for the commands that `wanted` picks.
pub(super) fn script(
    wanted: fn(Cdb) -> bool,
    acts: impl IntoIterator<Item = Act, IntoIter: Send + 'static>,
) -> impl FnMut(Cdb) -> Act + Send + 'static {
    let mut acts = acts.into_iter();
    move |cdb| {
        let act = if wanted(cdb) { acts.next() } else { None };
        act.unwrap_or(Act::Good)
    }
}

pub(super) fn is_write(cdb: Cdb) -> bool {
    matches!(cdb, Cdb::Write { .. })
}

fn is_flush(cdb: Cdb) -> bool {
    matches!(cdb, Cdb::SynchronizeCache { .. })
}

const CAPACITY_CHANGED: Sense = Sense::new(SenseKey::UNIT_ATTENTION, 0x2a, 0x09);

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_unit_and_its_news_are_waited_out() {
    let acts = [
        Act::Status(Status::BUSY),
        Act::Sense(CAPACITY_CHANGED),
        Act::Status(Status::TASK_SET_FULL),
        Act::Sense(Sense::new(SenseKey::NOT_READY, 0x04, 0x01)),
    ];
    let (port, _peer) = scripted(script(is_write, acts)).await;
    let session = Session::login(options(port)).await.unwrap();
    session.write(0, pattern(512, 1)).await.unwrap();
    session.flush().await.unwrap();
    session.logout().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_never_becomes_ready_is_given_up() {
    let busy = std::iter::repeat_with(|| Act::Status(Status::BUSY));
    let (port, _peer) = scripted(script(is_write, busy)).await;
    let mut login = options(port);
    login.command_timeout = Duration::from_millis(300);
    let session = Session::login(login).await.unwrap();
    let error = session.write(0, pattern(512, 1)).await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(kind(error), Kind::Conflict);
    // The session as such is well.
    session.flush().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_after_unflushed_writes_is_never_hidden() {
    let reset = || Act::Sense(Sense::POWER_ON_OR_RESET);
    let (port, _peer) = scripted(script(is_flush, [reset()])).await;
    let session = Session::login(options(port)).await.unwrap();
    session.write(0, pattern(512, 1)).await.unwrap();
    for _ in 0..2 {
        let error = session.flush().await.unwrap_err();
        assert!(error.is_retryable());
        assert_eq!(kind(error), Kind::InDoubt);
    }

    // With nothing at stake it is only news.
    let (port, _peer) = scripted(script(is_flush, [Act::Good, reset()])).await;
    let session = Session::login(options(port)).await.unwrap();
    session.write(0, pattern(512, 1)).await.unwrap();
    session.flush().await.unwrap();
    session.flush().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sense_data_becomes_the_kind_of_the_error() {
    let table = [
        (Act::Sense(Sense::WRITE_ERROR), Kind::Io),
        (Act::Sense(Sense::SPACE_ALLOCATION_FAILED), Kind::Limit),
        (
            Act::Sense(Sense::new(SenseKey::DATA_PROTECT, 0x27, 0x00)),
            Kind::Refused,
        ),
        (Act::Sense(Sense::INVALID_FIELD_IN_CDB), Kind::Invalid),
        (Act::Status(Status::RESERVATION_CONFLICT), Kind::Conflict),
        (Act::Status(Status::CHECK_CONDITION), Kind::Protocol),
    ];
    let (acts, kinds): (Vec<_>, Vec<_>) = table.into_iter().unzip();
    let (port, _peer) = scripted(script(is_write, acts)).await;
    let session = Session::login(options(port)).await.unwrap();
    for expected in kinds {
        let error = session.write(0, pattern(512, 1)).await.unwrap_err();
        assert_eq!(kind(error), expected);
    }
    session.write(0, pattern(512, 1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_wants_us_gone_gets_its_logout() {
    let (port, mut peer) = scripted(script(is_write, [Act::First(asynchronous(1))])).await;
    let session = Session::login(options(port)).await.unwrap();
    session.write(0, pattern(512, 1)).await.unwrap();
    wait_for("the end of the session", async || {
        session.flush().await.is_err()
    })
    .await;
    let error = session.write(0, pattern(512, 1)).await.unwrap_err();
    assert!(error.to_string().contains("asks for logout"), "{error}");
    assert!(error.is_retryable());
    let end = tokio::time::timeout(Duration::from_secs(10), peer.join_next()).await;
    end.expect("the connection is closed").unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_of_a_target_ends_the_session_at_once() {
    let (port, _peer) = scripted(script(is_write, [Act::Garbage])).await;
    let session = Session::login(options(port)).await.unwrap();
    let write = session.write(0, pattern(512, 1));
    let error = tokio::time::timeout(Duration::from_secs(5), write)
        .await
        .unwrap()
        .unwrap_err();
    assert!(!error.is_retryable());
    assert_eq!(kind(error), Kind::Protocol);
}
