//! Transfers that are cut or damaged on the way to and from the real services.

use super::cloud::{Cloud, client, unique};
use super::proxy::{Fault, Proxy};
use super::services::services;
use crate::objectstore::site::{files, pattern};
use flowrun::error::Kind;
use flowrun::openstack::swift::{Body, Entry, ListOptions, Swift, UploadOptions};
use serde_json::json;

/// A container of one real Swift, seen through a proxy.
struct Place<'a> {
    swift: Swift,
    proxy: &'a Proxy,
    container: String,
    dir: tempfile::TempDir,
}

impl<'a> Place<'a> {
    async fn new(swift: Swift, proxy: &'a Proxy) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = Self {
            container: unique(&dir),
            swift,
            proxy,
            dir,
        };
        // The container is there before anything is broken.
        let first = Body::Bytes("first".into());
        place.upload("first", first, None).await.unwrap();
        place
    }

    fn file(&self, content: &[u8]) -> Body {
        let path = self.dir.path().join("upload");
        std::fs::write(&path, content).unwrap();
        Body::File(path)
    }

    async fn upload(
        &self,
        name: &str,
        body: Body,
        segment_bytes: Option<u64>,
    ) -> flowrun::error::Result<()> {
        let options = UploadOptions {
            create_container: true,
            segment_bytes,
            ..UploadOptions::default()
        };
        let upload = self.swift.upload(&self.container, name, body, options);
        upload.await.map(drop)
    }

    async fn download(&self, name: &str) -> flowrun::error::Result<Vec<u8>> {
        let to = self.dir.path().join("got");
        self.swift.download(&self.container, name, &to).await?;
        Ok(std::fs::read(to).unwrap())
    }

    async fn names(&self, container: &str) -> Vec<String> {
        let rows = self.swift.list(container, ListOptions::default()).await;
        let rows = rows.unwrap();
        rows.iter().map(Entry::name).map(str::to_owned).collect()
    }
}

async fn on_both(test: impl AsyncFn(&Cloud, Place<'_>)) {
    let cloud = Cloud::new().await;
    let tester = client(cloud.tempauth("tester", "testing"));
    test(&cloud, Place::new(tester, &cloud.tempauth).await).await;
    let user = client(cloud.swift(cloud.user()));
    test(&cloud, Place::new(user, &cloud.swift).await).await;
}

#[tokio::test]
async fn a_cut_upload_is_sent_again_and_doubles_nothing() {
    on_both(async |_, place| {
        let content = pattern(3_000_000);
        // The first reached the store in part, the second whole, with the answer lost.
        let faults = [Fault::CutRequest(1_000_000), Fault::CutAnswer];
        place.proxy.breaks("PUT", "/o", faults);
        let body = place.file(&content);
        place.upload("o", body, None).await.unwrap();
        assert_eq!(place.proxy.seen().len(), 3);
        assert!(place.download("o").await.unwrap() == content);
        assert_eq!(place.names(&place.container).await, ["first", "o"]);

        let faults = [Fault::CutAnswer, Fault::CutRequest(500_000)];
        place.proxy.breaks("PUT", "_segments/big", faults);
        let body = place.file(&content);
        place.upload("big", body, Some(1 << 20)).await.unwrap();
        assert_eq!(
            place.proxy.seen().len(),
            3 + 2,
            "three segments, two of them twice"
        );
        assert!(place.download("big").await.unwrap() == content);
        let segments = format!("{}_segments", place.container);
        assert_eq!(place.names(&segments).await.len(), 3);
        assert_eq!(place.names(&place.container).await, ["big", "first", "o"]);
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_stays_cut_leaves_what_was_there() {
    on_both(async |cloud, place| {
        place
            .proxy
            .breaks("PUT", "/first", [const { Fault::CutRequest(1_000_000) }; 9]);
        let body = place.file(&pattern(3_000_000));
        let error = place.upload("first", body, None).await.unwrap_err();
        let named = (error.kind(), error.is_retryable(), error.operation());
        assert_eq!(
            named,
            (Kind::Unreachable, true, "swift.upload"),
            "{error:?}"
        );
        assert_eq!(error.details()["tries"], 4);
        cloud.is_masked(&error);
        assert_eq!(place.download("first").await.unwrap(), b"first");
    })
    .await;
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_broke() {
    on_both(async |_, place| {
        let content = pattern(3_000_000);
        for segment_bytes in [None, Some(1 << 20)] {
            let body = place.file(&content);
            place.upload("o", body, segment_bytes).await.unwrap();
            let faults = [
                Fault::CutBody(1_500_000),
                Fault::CutAnswer,
                Fault::CutBody(9),
            ];
            place.proxy.breaks("GET", "/o", faults);
            assert!(place.download("o").await.unwrap() == content);
            let heads = place.proxy.seen();
            let resumed = heads.iter().filter(|head| head.contains("range: bytes="));
            assert_eq!((heads.len(), resumed.count()), (4, 3), "{heads:#?}");
        }
        place
            .proxy
            .breaks("GET", "/o", [const { Fault::CutBody(1000) }; 9]);
        let error = place.download("o").await.unwrap_err();
        let named = (error.kind(), error.is_retryable(), error.operation());
        assert_eq!(
            named,
            (Kind::Unreachable, true, "swift.download"),
            "{error:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn damaged_bytes_are_noticed_and_not_kept() {
    on_both(async |cloud, place| {
        let content = pattern(3_000_000);
        // Swift compares bytes with the ETag that came with them; of a file the client compares.
        for (body, status) in [
            (Body::Bytes(content.clone().into()), 422),
            (place.file(&content), 201),
        ] {
            place
                .proxy
                .breaks("PUT", "/o", [Fault::FlipRequest(2_000_000)]);
            let error = place.upload("o", body, None).await.unwrap_err();
            let named = (error.kind(), error.is_retryable(), error.operation());
            assert_eq!(named, (Kind::Corrupt, true, "swift.upload"), "{error:?}");
            assert_eq!(error.details()["status"], status);
            assert!(error.advice().is_some(), "{error:?}");
            cloud.is_masked(&error);
            assert_eq!(place.names(&place.container).await, ["first"]);
        }
        place.proxy.breaks("PUT", "/o", []);
        place.upload("o", place.file(&content), None).await.unwrap();
        let before = files(place.dir.path()).len();
        place
            .proxy
            .breaks("GET", "/o", [Fault::FlipBody(2_000_000)]);
        let error = place.download("o").await.unwrap_err();
        let named = (error.kind(), error.is_retryable(), error.operation());
        assert_eq!(named, (Kind::Corrupt, true, "swift.download"), "{error:?}");
        assert!(error.advice().is_some(), "{error:?}");
        assert_eq!(
            files(place.dir.path()).len(),
            before,
            "no part of it either"
        );
        assert!(place.download("o").await.unwrap() == content);
    })
    .await;
}

#[tokio::test]
async fn an_image_comes_whole_or_not_at_all() {
    let cloud = Cloud::new().await;
    let glance = cloud.glance(cloud.user());
    let data = pattern(3_000_000);
    // Out of its Swift store Glance gives no part: it is begun again.
    for (store, parts) in [("file", 3), ("swift", 2)] {
        let id = services()
            .upload_image(store, json!({}), data.clone())
            .await;
        let image = glance.image(&id).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("image");
        let faults = [
            Fault::CutBody(1_500_000),
            Fault::CutAnswer,
            Fault::CutBody(9),
        ];
        cloud.glance.breaks("GET", "/file", faults);
        glance.download(&image, &to).await.unwrap();
        assert!(std::fs::read(&to).unwrap() == data, "{store}");
        let heads = cloud.glance.seen();
        let resumed = heads.iter().filter(|head| head.contains("range: bytes="));
        assert_eq!(
            (heads.len(), resumed.count()),
            (4, parts),
            "{store}: {heads:#?}"
        );

        std::fs::remove_file(&to).unwrap();
        cloud
            .glance
            .breaks("GET", "/file", [Fault::FlipBody(2_000_000)]);
        let error = glance.download(&image, &to).await.unwrap_err();
        let named = (error.kind(), error.is_retryable(), error.operation());
        assert_eq!(named, (Kind::Corrupt, true, "glance.download"), "{error:?}");
        assert!(error.advice().is_some(), "{error:?}");
        cloud.is_masked(&error);
        assert_eq!(files(dir.path()).len(), 0, "no part of it either");
    }
}
