//! What else the binary does.

use super::{code, root, run, text};

#[test]
fn the_example_runs() {
    let output = run(&["examples/health.lua", "--node", "lab-1", "--lab"]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    assert!(
        text(&output).contains("lab-1 is a ProLiant"),
        "{}",
        text(&output)
    );
}

#[test]
fn one_primitive_can_be_called_by_hand() {
    let output = run(&["call", "ilo.power_state", "--node", "lab-1", "--lab"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "\"off\"\n",
        "{}",
        text(&output)
    );
    let output = run(&["call", "hash.sha256", "{\"text\": \"abc\"}", "--lab"]);
    assert!(text(&output).contains("ba7816bf"), "{}", text(&output));
    let output = run(&["call", "ilo.power_stat", "--node", "lab-1", "--lab"]);
    assert_eq!(code(&output), 2);
    assert!(
        text(&output).contains("did you mean ilo.power_state?"),
        "{}",
        text(&output)
    );
    let output = run(&[
        "call",
        "ilo.eject_vmedia",
        "{\"devise\": \"cdrom\"}",
        "--node",
        "lab-1",
        "--lab",
    ]);
    assert_eq!(code(&output), 2, "{}", text(&output));
}

#[test]
fn help_and_types_are_printed_from_the_registry() {
    let page = text(&run(&["help", "ilo.attach_vmedia"]));
    for part in [
        "ilo.attach_vmedia(node, {",
        "device",
        "effect+probe",
        "Example",
    ] {
        assert!(page.contains(part), "{page}");
    }
    assert!(text(&run(&["help", "ilo.atach_vmedia"])).contains("did you mean ilo.attach_vmedia?"));
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(code(&run(&["types", dir.path().to_str().unwrap()])), 0);
    let committed = root().join("stdlib/types");
    let mut names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    let mut known: Vec<_> = std::fs::read_dir(&committed)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    known.sort();
    assert_eq!(names, known, "run `flowrun types`");
    for name in names {
        let (new, old) = (dir.path().join(&name), committed.join(&name));
        assert!(
            std::fs::read(new).unwrap() == std::fs::read(old).unwrap(),
            "run `flowrun types`: {name:?}"
        );
    }
}

/// With the line that is wrong, where there is one, and once.
#[test]
fn an_error_before_a_run_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("broken.lua");
    std::fs::write(&broken, "local a = 1\nretrun flow {}\n").unwrap();
    let broken = broken.to_str().unwrap();
    let stock = super::FLOW;
    for more in [&["--lab"][..], &["--lab", "--dry-run"]] {
        for (flow, action, part, line) in [
            (
                stock,
                "deplyo",
                "has no action deplyo",
                "did you mean deploy?",
            ),
            (broken, "deploy", "syntax error", ">    2 | retrun flow"),
        ] {
            let args = [&[flow, action, "--node", "lab-1"][..], more].concat();
            let output = run(&args);
            super::told(&output, 2, &[part, line]);
            assert_eq!(text(&output).matches(part).count(), 1, "{}", text(&output));
        }
    }
}
