//! Images of the real Glance: records, data, and URLs into its Swift store.

use super::services::services;
use crate::objectstore::site::pattern;
use flowrun::error::Kind;
use flowrun::http::{self, Trust};
use flowrun::image::checksum::{Algorithm, Checksum};
use flowrun::imagecache::{ImageCache, Limits, Origin, Sources};
use flowrun::openstack::swift::TempUrlOptions;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test]
async fn an_image_is_found_by_id_or_unique_name() {
    let glance = services().glance();
    let kernel = services().create_image(json!({ "name": "kernel" })).await;
    let record = json!({
        "name": "debian 12 & more", "min_disk": 3,
        "kernel_id": kernel, "ramdisk_id": "r", "boot_iso": "b", "os_distro": "debian",
    });
    let id = services()
        .upload_image("file", record, b"a very small disk".to_vec())
        .await;
    for name in [id.as_str(), "debian 12 & more"] {
        let image = glance.image(name).await.unwrap();
        assert_eq!(image.id, id);
        assert_eq!((image.size, image.min_disk), (Some(17), 3));
        assert_eq!(image.disk_format.as_deref(), Some("raw"));
        assert_eq!(image.kernel_id.as_deref(), Some(kernel.as_str()));
        assert_eq!(image.ramdisk_id.as_deref(), Some("r"));
        assert_eq!(image.boot_iso.as_deref(), Some("b"));
        assert_eq!(image.properties["os_distro"], "debian");
        assert_eq!(image.checksum().unwrap().algorithm, Algorithm::Sha512);
    }
    for _ in 0..2 {
        services().create_image(json!({ "name": "twice" })).await;
    }
    let error = glance.image("twice").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error:?}");
    for missing in ["nobody", "00000000-0000-4000-8000-000000000000"] {
        let error = glance.image(missing).await.unwrap_err();
        let named = (error.kind(), error.operation(), error.on());
        assert_eq!(named, (Kind::NotFound, "glance.image", missing));
    }
    let dir = tempfile::tempdir().unwrap();
    let queued = glance.image(&kernel).await.unwrap();
    let error = glance
        .download(&queued, &dir.path().join("x"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (Kind::Conflict, "the image is queued, not active")
    );
}

#[tokio::test]
async fn an_image_in_swift_can_be_read_by_url() {
    let swift = services().swift_of_glance();
    let glance = services().glance();
    let client = http::client(&Trust::System, Duration::from_secs(60)).unwrap();
    {
        let data = pattern(3_000_000);
        let id = services()
            .upload_image("swift", json!({}), data.clone())
            .await;
        let image = glance.image(&id).await.unwrap();
        let options = TempUrlOptions {
            filename: Some("boot.iso".to_owned()),
            ..TempUrlOptions::default()
        };
        let url = glance
            .temp_url(&image, &swift, "glance", options)
            .await
            .unwrap();
        let answer = client.get(url.expose()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.bytes().await.unwrap() == data);
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("image");
        glance.download(&image, &to).await.unwrap();
        assert!(std::fs::read(to).unwrap() == data);
    }
    let id = services()
        .upload_image("file", json!({}), pattern(1000))
        .await;
    let image = glance.image(&id).await.unwrap();
    let url = glance.temp_url(&image, &swift, "glance", TempUrlOptions::default());
    assert_eq!(url.await.unwrap_err().kind(), Kind::Unsupported);
}

#[tokio::test]
async fn the_cache_fetches_once_and_again_when_the_image_changed() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        bytes: 1 << 30,
        age: Duration::from_secs(3600),
    };
    let cache = ImageCache::open(&dir.path().join("cache"), limits).unwrap();
    let sources = Sources {
        glance: Some(Arc::new(services().glance())),
        swift: None,
        trust: Trust::System,
    };
    let data = pattern(3_000_000);
    let record = json!({ "name": "cached", "disk_format": "raw" });
    let id = services().upload_image("file", record, data.clone()).await;
    let get = |name: &str| {
        let origin = Origin::parse(name).unwrap();
        cache.fetch(&sources, origin, None)
    };
    let by_name = get("glance://cached").await.unwrap();
    assert!(std::fs::read(&by_name.path).unwrap() == data);
    let written = std::fs::metadata(&by_name.path)
        .unwrap()
        .modified()
        .unwrap();
    let by_id = get(&id).await.unwrap();
    assert_eq!(by_id.path, by_name.path);
    assert_eq!(
        std::fs::metadata(&by_id.path).unwrap().modified().unwrap(),
        written
    );
    assert_eq!(cache.list().unwrap().len(), 1);

    // Glance tells another time of change: it is looked at as another version.
    let client = http::client(&Trust::System, Duration::from_secs(60)).unwrap();
    let token = services().keystone().token().await.unwrap();
    let patched = client
        .patch(format!("{}/v2/images/{id}", services().about("glance")))
        .header("x-auth-token", token.header())
        .header(
            "content-type",
            "application/openstack-images-v2.1-json-patch",
        )
        .body(r#"[{"op": "replace", "path": "/name", "value": "renamed"}]"#)
        .send()
        .await
        .unwrap();
    assert_eq!(patched.status(), 200);
    drop((by_id, by_name));
    let changed = get(&id).await.unwrap();
    assert!(std::fs::read(&changed.path).unwrap() == data);
    assert_eq!(cache.list().unwrap().len(), 1, "the older version is gone");

    let wrong = Checksum::parse(&format!("sha512:{}", "0".repeat(128))).unwrap();
    let origin = Origin::parse(&id).unwrap();
    let error = cache
        .fetch(&sources, origin, Some(wrong))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
}
