//! Images by URL and by file: the checksum decides, and nothing else is kept.

use super::cloud::{Cloud, client, unique};
use super::proxy::Fault;
use crate::objectstore::site::{Site, files, pattern};
use flowrun::backoff::Backoff;
use flowrun::clock;
use flowrun::error::{Error, Kind, Result};
use flowrun::http::Trust;
use flowrun::image::checksum::Checksum;
use flowrun::imagecache::{Fetched, ImageCache, Limits, Origin, Sources};
use flowrun::openstack::swift::{
    Body, KeyOwner, Swift, SwiftOptions, TempUrlOptions, UploadOptions,
};
use flowrun::openstack::temp_url::{Digest as Signed, url};
use flowrun::secret::Secret;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

struct Cache {
    dir: tempfile::TempDir,
    cache: ImageCache,
    sources: Sources,
}

impl Cache {
    fn new(trust: Trust, swift: Option<Arc<Swift>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits {
            bytes: 1 << 30,
            age: Duration::from_secs(3600),
        };
        let sources = Sources {
            glance: None,
            swift,
            trust,
        };
        Self {
            cache: ImageCache::open(&dir.path().join("cache"), limits).unwrap(),
            dir,
            sources,
        }
    }

    async fn get(&self, source: &str, checksum: Option<&str>) -> Result<Fetched> {
        let checksum = checksum.map(|text| Checksum::parse(text).unwrap());
        let origin = Origin::parse(source).unwrap();
        self.cache.fetch(&self.sources, origin, checksum).await
    }

    /// A failure of this kind, with advice, that leaves nothing in the cache but a lock.
    async fn refuses(&self, source: &str, checksum: Option<&str>, kind: Kind, hint: &str) -> Error {
        let error = self.get(source, checksum).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        let advice = error.advice().unwrap_or_default();
        assert!(advice.contains(hint), "{error:?}");
        assert!(
            !error.on().is_empty() && !format!("{error:?}").contains("temp_url_sig"),
            "{error:?}"
        );
        let left = files(&self.dir.path().join("cache"));
        let left: Vec<&PathBuf> = left
            .iter()
            .filter(|file| file.extension().is_none_or(|what| what != "lock"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        error
    }
}

fn sha256(data: &[u8]) -> String {
    hex::encode(Sha256::digest(data))
}

fn wrong() -> String {
    "0".repeat(64)
}

/// A container of the real Swift that signs, and its storage URL's client.
async fn signing(cloud: &Cloud, container: &str, name: &str, data: &[u8]) -> Swift {
    let swift = client(SwiftOptions {
        temp_url_key: Some(Secret::new("a key of ours")),
        set_temp_url_key: Some(KeyOwner::Container),
        ..cloud.swift(cloud.user())
    });
    let options = UploadOptions {
        create_container: true,
        ..UploadOptions::default()
    };
    let body = Body::Bytes(data.to_vec().into());
    swift.upload(container, name, body, options).await.unwrap();
    swift
}

#[tokio::test]
async fn a_download_that_is_cut_goes_on_where_it_broke() {
    let (cloud, dir) = (Cloud::new().await, tempfile::tempdir().unwrap());
    let (container, data) = (unique(&dir), pattern(3_000_000));
    let swift = signing(&cloud, &container, "x.img", &data).await;
    let url = swift
        .temp_url(&container, "x.img", TempUrlOptions::default())
        .await
        .unwrap();
    let cache = Cache::new(Trust::System, None);
    let busy = Fault::Answer(429, "Retry-After: 0\r\n");
    let faults = [Fault::CutBody(1_000_000), busy, Fault::CutBody(1_000_000)];
    cloud.swift.breaks("GET", "/x.img", faults);
    let fetched = cache.get(url.expose(), Some(&sha256(&data))).await.unwrap();
    assert!(std::fs::read(&fetched.path).unwrap() == data);
    let heads = cloud.swift.seen();
    let resumed = heads
        .iter()
        .filter(|head| head.contains("range: bytes=") && head.contains("if-range: \""));
    assert_eq!((heads.len(), resumed.count()), (4, 3), "{heads:#?}");
    // Here already: nobody is asked.
    cache.get(url.expose(), Some(&sha256(&data))).await.unwrap();
    assert_eq!(cloud.swift.seen().len(), 4);
    let listed = cache.cache.list().unwrap();
    assert!(
        !format!("{listed:?}").contains("temp_url_sig"),
        "{listed:?}"
    );
}

#[tokio::test]
async fn without_the_right_checksum_there_is_no_image() {
    let (cloud, dir) = (Cloud::new().await, tempfile::tempdir().unwrap());
    let (container, data) = (unique(&dir), pattern(300_000));
    let swift = signing(&cloud, &container, "x.img", &data).await;
    let options = TempUrlOptions::default;
    let url = swift
        .temp_url(&container, "x.img", options())
        .await
        .unwrap();
    let url = url.expose();
    let (right, cache) = (sha256(&data), Cache::new(Trust::System, None));
    cache
        .refuses(url, None, Kind::Invalid, "image_checksum")
        .await;
    assert_eq!(cloud.swift.seen().len(), 0);
    cache
        .refuses(url, Some(&wrong()), Kind::Corrupt, "checksum")
        .await;
    cloud
        .swift
        .breaks("GET", "/x.img", [Fault::FlipBody(200_000)]);
    cache
        .refuses(url, Some(&right), Kind::Corrupt, "who offers")
        .await;
    let unsigned = url.split('?').next().unwrap();
    cache
        .refuses(unsigned, Some(&right), Kind::Auth, "without credentials")
        .await;
    let changed = url.replace("temp_url_sig=", "temp_url_sig=0");
    cache
        .refuses(&changed, Some(&right), Kind::Auth, "the key is not")
        .await;
    let missing = swift
        .temp_url(&container, "y.img", options())
        .await
        .unwrap();
    cache
        .refuses(missing.expose(), Some(&right), Kind::NotFound, "address")
        .await;
    for (status, kind) in [
        (302, Kind::Protocol),
        (403, Kind::Auth),
        (503, Kind::Unreachable),
    ] {
        let faults = (0..9).map(|_| Fault::Answer(status, "Retry-After: 999\r\n"));
        cloud.swift.breaks("GET", "/x.img", faults);
        cache.refuses(url, Some(&right), kind, "").await;
        assert_eq!(cloud.swift.seen().len(), 1, "{status}");
    }
    cloud.swift.breaks("GET", "/x.img", []);
    cache.get(url, Some(&right)).await.unwrap();
}

/// A URL that somebody signed whose clock is wrong.
#[tokio::test]
async fn a_url_that_ended_is_explained_by_the_clocks() {
    let (cloud, dir) = (Cloud::new().await, tempfile::tempdir().unwrap());
    let (container, data) = (unique(&dir), pattern(1000));
    let swift = signing(&cloud, &container, "x.img", &data).await;
    swift
        .temp_url(&container, "x.img", TempUrlOptions::default())
        .await
        .unwrap();
    let user = cloud.user();
    let token = user.token().await.unwrap();
    let storage = user.endpoint(&token, "object-store").unwrap();
    let path = format!("{container}/x.img");
    let key = Secret::new("a key of ours");
    let signed = |expires| {
        url(
            &storage,
            &path,
            "GET",
            expires,
            None,
            (Signed::Sha256, &key),
        )
        .unwrap()
    };
    let (right, cache) = (sha256(&data), Cache::new(Trust::System, None));
    let now = clock::unix_seconds();
    let ended = signed(now - 100);
    cache
        .refuses(
            ended.expose(),
            Some(&right),
            Kind::Auth,
            "s ago: sign a new one",
        )
        .await;
    cloud.swift.move_clock(3600);
    cache
        .refuses(
            ended.expose(),
            Some(&right),
            Kind::Auth,
            "ahead of this machine's",
        )
        .await;
    cache
        .get(signed(now + 600).expose(), Some(&right))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_server_is_believed_by_its_authority_alone() {
    let (site, data) = (Site::new(), pattern(100_000));
    let swift = Swift::new(SwiftOptions {
        retries: Backoff {
            times: 1,
            ..site.options().retries
        },
        ..site.options()
    })
    .unwrap();
    let options = UploadOptions {
        create_container: true,
        ..UploadOptions::default()
    };
    let body = Body::Bytes(data.clone().into());
    swift.upload("c", "x.img", body, options).await.unwrap();
    let url = swift
        .temp_url("c", "x.img", TempUrlOptions::default())
        .await
        .unwrap();
    let right = sha256(&data);
    for (trust, hint) in [
        (Trust::System, "give the CA"),
        (Trust::Ca(Site::new().ca), ""),
    ] {
        let cache = Cache::new(trust, None);
        cache
            .refuses(url.expose(), Some(&right), Kind::Auth, hint)
            .await;
    }
    let cache = Cache::new(Trust::Ca(site.ca.clone()), None);
    let fetched = cache.get(url.expose(), Some(&right)).await.unwrap();
    assert!(std::fs::read(&fetched.path).unwrap() == data);
}

#[tokio::test]
async fn a_file_by_url_needs_its_checksum_and_stays_where_it_is() {
    let (dir, data) = (tempfile::tempdir().unwrap(), pattern(3_000_000));
    let path = dir.path().join("x.img");
    std::fs::write(&path, &data).unwrap();
    let (by_url, right) = (format!("file://{}", path.display()), sha256(&data));
    let cache = Cache::new(Trust::System, None);
    cache.refuses(&by_url, None, Kind::Invalid, "SHA-256").await;
    cache
        .refuses(
            &by_url,
            Some(&wrong()),
            Kind::Corrupt,
            "correct its checksum",
        )
        .await;
    for (source, checksum) in [
        (by_url.as_str(), Some(right.as_str())),
        (path.to_str().unwrap(), Some(right.as_str())),
        (path.to_str().unwrap(), None),
    ] {
        let fetched = cache.get(source, checksum).await.unwrap();
        assert_eq!(fetched.path, path);
        assert_eq!(fetched.checksum.is_some(), checksum.is_some());
    }
    assert_eq!(files(&cache.dir.path().join("cache")).len(), 0);
}

#[tokio::test]
async fn an_object_of_swift_is_compared_with_its_etag_or_its_checksum() {
    let (cloud, dir) = (Cloud::new().await, tempfile::tempdir().unwrap());
    let (container, data) = (unique(&dir), pattern(3_000_000));
    let swift = Arc::new(signing(&cloud, &container, "x.img", &data).await);
    let cache = Cache::new(Trust::System, Some(Arc::clone(&swift)));
    let source = format!("swift:{container}/x.img");
    cloud
        .swift
        .breaks("GET", "/x.img", [Fault::FlipBody(200_000)]);
    cache.refuses(&source, None, Kind::Corrupt, "").await;
    cache
        .refuses(&source, Some(&wrong()), Kind::Corrupt, "upload it again")
        .await;
    let missing = format!("swift:{container}/y.img");
    cache
        .refuses(&missing, None, Kind::NotFound, "swift.list")
        .await;
    cloud
        .swift
        .breaks("GET", "/x.img", [Fault::CutBody(200_000)]);
    let first = cache.get(&source, None).await.unwrap();
    assert!(std::fs::read(&first.path).unwrap() == data);
    assert_eq!(cloud.swift.seen().len(), 2);
    let again = cache.get(&source, None).await.unwrap();
    assert_eq!(again.path, first.path);
    assert_eq!(cloud.swift.seen().len(), 2, "it was here");

    // Replaced, in segments: no hash of the whole, until somebody gives one.
    let changed = pattern(2_500_000);
    let file = dir.path().join("changed");
    std::fs::write(&file, &changed).unwrap();
    let options = UploadOptions {
        segment_bytes: Some(1 << 20),
        ..UploadOptions::default()
    };
    swift
        .upload(&container, "x.img", Body::File(file), options)
        .await
        .unwrap();
    let error = cache.get(&source, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error:?}");
    let fetched = cache.get(&source, Some(&sha256(&changed))).await.unwrap();
    assert!(std::fs::read(&fetched.path).unwrap() == changed);
}
