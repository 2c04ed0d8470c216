//! Uploads of 1 GiB to a server that takes and forgets them, against curl and python-swiftclient;
//! and a boot ISO that is written while it is uploaded, against one that is made first.
//!
//! `cargo bench --bench uploads [-- FOLDER [ROUNDS]]` needs curl, genisoimage and, for the
//! comparison with swiftclient, its program `swift`; `FLOWRUN_TEST_PYTHON` names a Python beside
//! it. FOLDER defaults to `/dev/shm`. The server hashes nothing: it knows the ETags beforehand.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark prints, measures time, and stops at the first surprise"
)]

#[path = "support/race.rs"]
mod race;
#[path = "support/sink.rs"]
mod sink;

use flowrun::http::Trust;
use flowrun::image::artifact::ArtifactStore;
use flowrun::image::iso::{Iso, IsoSpec, Source};
use flowrun::openstack::swift::{Body, Swift, SwiftAuth, SwiftOptions, UploadOptions};
use flowrun::secret::Secret;
use race::{Competitor, noise, peak, race, report};
use sink::Sink;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MIB: usize = 1024;
const SEGMENT: u64 = 128 << 20;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [what, port, folder] => upload(what, Path::new(folder), port).await,
        [folder, rounds] => compare(Path::new(folder), rounds.parse().unwrap()),
        [folder] => compare(Path::new(folder), 5),
        [] => compare(Path::new("/dev/shm"), 5),
        _ => panic!("usage: uploads [FOLDER [ROUNDS]]"),
    }
}

fn iso(folder: &Path) -> Iso {
    let spec = IsoSpec {
        volume_id: "BENCH".to_owned(),
        kernel: Source::Bytes(vec![7; 12 << 20]),
        ramdisk: Source::File(folder.join("file")),
        kernel_params: "quiet".to_owned(),
        isolinux: None,
        grub: None,
        files: Vec::new(),
    };
    Iso::plan(&spec).unwrap()
}

/// What one of our processes does.
async fn upload(what: &str, folder: &Path, port: &str) {
    let auth = SwiftAuth::V1 {
        auth_url: format!("http://127.0.0.1:{port}/auth/v1.0"),
        user: "a:b".to_owned(),
        key: Secret::new("c"),
    };
    let swift = Swift::new(SwiftOptions::new(auth, Trust::System)).unwrap();
    let store = ArtifactStore::open(&folder.join("artifacts")).unwrap();
    let mut options = UploadOptions::default();
    let (name, body) = match what {
        "file" => ("file", Body::File(folder.join("file"))),
        "unchecked" => {
            options.unchecked = true;
            ("file", Body::File(folder.join("file")))
        }
        "segments" => {
            options.segment_bytes = Some(SEGMENT);
            ("file", Body::File(folder.join("file")))
        }
        "ready" => ("iso", Body::File(folder.join("iso"))),
        "written" | "written-unchecked" => {
            options.unchecked = what != "written";
            ("iso", Body::Iso(Arc::new(iso(folder))))
        }
        "made" => {
            let artifact = store.put(|out| iso(folder).write(out)).unwrap();
            ("iso", Body::File(artifact.path))
        }
        _ => panic!("no upload {what}"),
    };
    let made = match &body {
        Body::File(path) if what == "made" => Some(path.clone()),
        _ => None,
    };
    swift.upload("c", name, body, options).await.unwrap();
    if let Some(path) = made {
        fs::remove_file(path).unwrap();
    }
    peak();
}

fn compare(place: &Path, rounds: usize) {
    let folder = tempfile::tempdir_in(place).unwrap();
    let folder = folder.path();
    noise(&folder.join("file"), MIB);
    iso(folder)
        .write(&mut fs::File::create(folder.join("iso")).unwrap())
        .unwrap();
    let sink = Sink::start(folder, SEGMENT);
    let port = sink.port;
    let ours = |name, what: &str| Competitor::ours(name, &format!("{what} {port}"), folder);
    let curl = format!("curl -sSf -H Expect: -T file http://127.0.0.1:{port}/v1/AUTH_a/c/file");
    let swift = swift().map(|program| {
        format!("{program} -A http://127.0.0.1:{port}/auth/v1.0 -U a:b -K c upload --object-name")
    });

    let mut all = vec![
        Competitor::new("curl -T", &curl),
        ours("swift.upload, unchecked", "unchecked"),
        ours("swift.upload", "file"),
        ours("  segments of 128 MiB", "segments"),
    ];
    if let Some(swift) = &swift {
        all.push(Competitor::new(
            "swift upload",
            &format!("{swift} file c file"),
        ));
        all.push(Competitor::new(
            "  -S 128M",
            &format!("{swift} file -S 128M c file"),
        ));
    }
    race(&mut all, folder, rounds);
    let title = format!("upload of {MIB} MiB");
    report(&title, &all);
    if swift.is_some() {
        all.swap(0, 4);
        report(&title, &all);
    }

    let mut all = vec![
        ours("ready file", "ready"),
        ours("written while sent", "written"),
        ours("  unchecked", "written-unchecked"),
        ours("made, then uploaded", "made"),
    ];
    if let Some(swift) = &swift {
        // It uploads our medium, as long as its own, whose ETag the server knows.
        let script = format!(
            "mkdir -p in; cp file in/initrd; genisoimage -quiet -R -J -V BENCH -o out in; \
             {swift} iso c iso; rm -r in out"
        );
        all.push(Competitor::shell("copy, genisoimage, swift", &script));
    }
    race(&mut all, folder, rounds);
    report(
        &format!("ISO of 12 MiB kernel and {MIB} MiB ramdisk, uploaded"),
        &all,
    );
}

/// swiftclient's program.
fn swift() -> Option<String> {
    let python = PathBuf::from(std::env::var_os("FLOWRUN_TEST_PYTHON")?);
    let swift = python.parent()?.join("swift");
    swift.is_file().then(|| swift.display().to_string())
}
