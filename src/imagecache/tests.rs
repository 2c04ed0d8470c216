//! The cache alone, with what is fetched made up.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering};

fn cache(bytes: u64, age: Duration) -> (tempfile::TempDir, ImageCache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = ImageCache::open(&dir.path().join("images"), Limits { bytes, age }).unwrap();
    (dir, cache)
}

const DAY: Duration = Duration::from_secs(86_400);

fn identity(name: &str, bytes: u64) -> Identity {
    let (source, version) = name.split_once('@').unwrap_or((name, "1"));
    Identity {
        source: source.to_owned(),
        version: version.to_owned(),
        bytes: Some(bytes),
    }
}

async fn get(cache: &ImageCache, name: &str, bytes: u64) -> Result<Lease> {
    let content = vec![7; usize::try_from(bytes).unwrap()];
    let write = async |to: &Path| {
        std::fs::write(to, &content).unwrap();
        Ok(bytes)
    };
    cache.get(&identity(name, bytes), write).await
}

fn sources(cache: &ImageCache) -> Vec<String> {
    let listed = cache.list().unwrap().into_iter();
    listed
        .map(|l| format!("{}@{}", l.entry.source, l.entry.version))
        .collect()
}

#[tokio::test]
async fn many_that_wait_share_one_download() {
    let (_dir, cache) = cache(1 << 20, DAY);
    let (began, fetches) = (tokio::sync::Notify::new(), AtomicU32::new(0));
    let wait_and_write = async |to: &Path| {
        fetches.fetch_add(1, Ordering::SeqCst);
        began.notified().await;
        std::fs::write(to, "image").unwrap();
        Ok(5)
    };
    let wanted = identity("a", 5);
    let all = futures_util::future::join_all((0..8).map(|_| cache.get(&wanted, wait_and_write)));
    let (leases, ()) = tokio::join!(all, async {
        tokio::task::yield_now().await;
        began.notify_one();
    });
    for lease in leases {
        assert_eq!(std::fs::read(lease.unwrap().path).unwrap(), b"image");
    }
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_failed_or_died_is_not_there_and_comes_again() {
    let (_dir, cache) = cache(1 << 20, DAY);
    let fail = async |to: &Path| {
        std::fs::write(to, "half").unwrap();
        Err(Error::new(Kind::Unreachable, "cut"))
    };
    let error = cache.get(&identity("a", 4), fail).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
    assert_eq!(sources(&cache), [""; 0]);
    // As if a process had died: in the middle of the download, before and after the rename.
    let key = identity("a", 4).key();
    std::fs::create_dir(cache.path(&key, "parts")).unwrap();
    std::fs::write(cache.path(&key, "parts").join("image"), "ha").unwrap();
    std::fs::write(cache.path(&key, "image"), "old!").unwrap();
    assert_eq!(sources(&cache), [""; 0]);
    let lease = get(&cache, "a", 4).await.unwrap();
    assert_eq!(std::fs::read(&lease.path).unwrap(), [7; 4]);
    assert!(!cache.path(&key, "parts").exists());
    drop(lease);
    // Somebody wrote into it.
    std::fs::write(cache.path(&key, "image"), "evil").unwrap();
    let lease = get(&cache, "a", 4).await.unwrap();
    assert_eq!(std::fs::read(&lease.path).unwrap(), [7; 4]);
}

#[tokio::test]
async fn what_the_dead_left_goes_with_the_next_download() {
    let (_dir, cache) = cache(1 << 20, DAY);
    let [half, unnamed, fetching] = ["half", "unnamed", "fetching"].map(|n| identity(n, 4).key());
    for key in [&half, &fetching] {
        std::fs::create_dir(cache.path(key, "parts")).unwrap();
        std::fs::write(cache.path(key, "parts").join("image"), "ha").unwrap();
    }
    std::fs::write(cache.path(&unnamed, "image"), "half").unwrap();
    let alive = cache.lock_file(&fetching).unwrap();
    alive.lock().unwrap();
    drop(get(&cache, "a", 4).await.unwrap());
    let there = |key, what| cache.path(key, what).exists();
    assert!(!there(&half, "parts") && !there(&half, "lock") && !there(&unnamed, "image"));
    assert!(there(&fetching, "parts"), "somebody fetches it now");
    assert_eq!(sources(&cache), ["a@1"]);
}

#[tokio::test]
async fn a_resumed_run_holds_its_image_again() {
    let (_dir, cache) = cache(500, DAY);
    let path = get(&cache, "a", 400).await.unwrap().path.clone();
    let Held::Again(lease) = cache.hold_again(&path).unwrap() else {
        panic!("it is there");
    };
    drop(get(&cache, "b", 400).await.unwrap());
    assert_eq!(
        sources(&cache),
        ["a@1", "b@1"],
        "over the limit, but in use"
    );
    drop(lease);
    drop(get(&cache, "c", 400).await.unwrap());
    assert!(matches!(cache.hold_again(&path).unwrap(), Held::Gone));
    let elsewhere = cache.hold_again(Path::new("/srv/images/a.image")).unwrap();
    assert!(matches!(elsewhere, Held::Elsewhere));
}

#[tokio::test]
async fn a_changed_image_replaces_the_old_one_unless_that_is_in_use() {
    let (_dir, cache) = cache(1 << 20, DAY);
    let old = get(&cache, "a@1", 4).await.unwrap();
    let new = get(&cache, "a@2", 4).await.unwrap();
    assert_ne!(old.path, new.path);
    assert_eq!(sources(&cache).len(), 2);
    assert!(cache.list().unwrap().iter().all(|listed| listed.in_use));
    drop((old, new));
    drop(get(&cache, "a@3", 4).await.unwrap());
    assert_eq!(sources(&cache), ["a@3"]);
}

#[tokio::test]
async fn the_least_recently_used_go_when_it_is_full_and_the_old_always() {
    let (_dir, cache) = cache(1000, DAY);
    drop(get(&cache, "a", 400).await.unwrap());
    let b = get(&cache, "b", 400).await.unwrap();
    drop(get(&cache, "a", 400).await.unwrap());
    let used = |name: &str, ago: Duration| {
        let lock = cache.lock_file(&identity(name, 400).key()).unwrap();
        lock.set_modified(clock::now() - ago).unwrap();
    };
    used("a", Duration::from_secs(10));
    used("b", Duration::from_secs(20));
    drop(get(&cache, "c", 400).await.unwrap());
    assert_eq!(sources(&cache), ["b@1", "c@1"], "b is older, but in use");
    drop(b);
    used("c", 2 * DAY);
    drop(get(&cache, "d", 10).await.unwrap());
    assert_eq!(sources(&cache), ["b@1", "d@1"]);
}

#[tokio::test]
async fn what_does_not_fit_on_the_disk_is_not_begun() {
    let (_dir, cache) = cache(u64::MAX, DAY);
    let never = async |_: &Path| panic!("must not begin");
    let huge = identity("a", 1 << 60);
    let error = cache.get(&huge, never).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Limit);
    assert!(error.message().contains("1152921504606846976"), "{error}");
}

#[test]
fn sources_are_told_apart() {
    let id = "1be26c0b-03f2-4d2e-ae87-c02d7f33c781";
    let swift = Origin::Swift {
        container: "c".into(),
        object: "a/b".into(),
    };
    for (text, origin) in [
        (id.to_owned(), Origin::Glance(id.into())),
        (format!("glance:{id}"), Origin::Glance(id.into())),
        (
            "glance://debian 12".to_owned(),
            Origin::Glance("debian 12".into()),
        ),
        ("https://h/x".to_owned(), Origin::Http("https://h/x".into())),
        ("swift:c/a/b".to_owned(), swift.clone()),
        ("swift://c/a/b".to_owned(), swift),
    ] {
        assert_eq!(Origin::parse(&text).unwrap(), origin);
    }
    let file = |text| Origin::parse(text).unwrap();
    let expected = |url| Origin::File {
        path: "/a b".into(),
        url,
    };
    assert_eq!(
        (file("file:///a b"), file("/a b")),
        (expected(true), expected(false))
    );
    for (text, kind) in [
        ("ftp://h/x", Kind::Unsupported),
        ("swift:object", Kind::Invalid),
        ("swift://c/", Kind::Invalid),
    ] {
        assert_eq!(Origin::parse(text).unwrap_err().kind(), kind, "{text}");
    }
    assert_eq!(
        http::shown("https://u:hunter2@h/p/x.img?sig=hunter2"),
        "https://h/p/x.img"
    );
}
