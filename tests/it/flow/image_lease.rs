//! An image that a run uses stays in the cache, also when the run was killed and resumed.

use super::{LabUp, code, flowrun, signal, text, until_entry};
use flowrun::clock;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

const FLOW: &str = r#"-- Holds an image.
return flow {
  name = "hold", summary = "Fetches an image and holds it.", api = ">= 0.1",
  actions = {
    deploy = function()
      local img = step("fetch", function() return image.fetch("swift:images/x") end)
      step("hold", function() sleep("1h") end)
      return img.path
    end,
  },
}
"#;

/// What a call prints, as JSON.
fn call(lab: &LabUp, primitive: &str, arguments: &Value) -> Value {
    let output = flowrun(&["call", primitive, &arguments.to_string()])
        .args(["--lab-dir", lab.dir()])
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// Puts another version of the image into the store.
fn upload(lab: &LabUp, content: &str) {
    let text = content.repeat(1000);
    let object = json!({ "container": "images", "name": "x", "text": text });
    call(lab, "swift.upload", &object);
}

fn fetch(lab: &LabUp) -> String {
    let image = call(lab, "image.fetch", &json!({ "source": "swift:images/x" }));
    image["path"].as_str().unwrap().to_owned()
}

/// Paths in the cache, and whether they are in use.
fn cached(lab: &LabUp) -> Vec<(String, bool)> {
    let output = flowrun(&["images", "--json", "--lab-dir", lab.dir()])
        .output()
        .unwrap();
    let lines = text(&output);
    let images = lines.lines().map(|line| {
        let image: Value = serde_json::from_str(line).unwrap();
        let key = image["key"].as_str().unwrap().to_owned();
        (key, image["in_use"].as_bool().unwrap())
    });
    images.collect()
}

fn key(path: &str) -> String {
    Path::new(path)
        .file_stem()
        .unwrap()
        .to_string_lossy()
        .into_owned()
}

fn until_in_use(lab: &LabUp, path: &str) {
    let deadline = clock::instant() + Duration::from_secs(120);
    while !cached(lab).contains(&(key(path), true)) {
        assert!(
            clock::instant() < deadline,
            "{path} is not held: {:?}",
            cached(lab)
        );
    }
}

fn kill(mut child: Child) {
    signal(&child, "-KILL");
    child.wait().unwrap();
}

#[test]
fn a_resumed_run_holds_its_image_and_fetches_one_that_is_gone() {
    let lab = LabUp::start(1, &[]);
    let flow = lab.path("hold.lua");
    std::fs::write(&flow, FLOW).unwrap();
    let start = |arguments: &[&str]| {
        let mut command = flowrun(arguments);
        command.args(["--lab-dir", lab.dir()]);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    upload(&lab, "first");
    let child = start(&[flow.to_str().unwrap(), "--node", "lab-1"]);
    until_entry(&lab, "hold/sleep");
    let first = cached(&lab);
    assert!(matches!(first[..], [(_, true)]), "{first:?}");
    let path = lab.path(&format!("state/images/{}.image", first[0].0));
    let path = path.to_str().unwrap();
    kill(child);
    assert_eq!(
        cached(&lab),
        [(key(path), false)],
        "a dead process holds nothing"
    );

    let id = lab.newest_run().unwrap()["id"].as_str().unwrap().to_owned();
    let child = start(&["resume", &id]);
    until_in_use(&lab, path);
    // A newer version comes, which would evict the older one if nobody used it.
    upload(&lab, "second");
    let second = fetch(&lab);
    let listed = cached(&lab);
    assert!(listed.contains(&(key(path), true)), "{listed:?}");
    assert!(listed.contains(&(key(&second), false)), "{listed:?}");
    assert_eq!(
        std::fs::read(path).unwrap(),
        "first".repeat(1000).as_bytes()
    );
    kill(child);

    // Nobody held it for a while: it is evicted, and comes again when the run is resumed.
    upload(&lab, "third");
    let third = fetch(&lab);
    assert_eq!(cached(&lab), [(key(&third), false)]);
    upload(&lab, "first");
    let mut child = start(&["resume", &id]);
    until_in_use(&lab, path);
    assert_eq!(
        std::fs::read(path).unwrap(),
        "first".repeat(1000).as_bytes()
    );
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(3));
}
