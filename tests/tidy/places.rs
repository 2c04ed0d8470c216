//! What documents say of where things are: `path:name` in a table names a file that is there, and
//! something in it.

use std::fs;
use std::path::Path;

/// A place that is not there, with the line that names it.
pub(crate) fn lost_places(root: &Path, text: &str) -> Vec<(usize, String)> {
    let mut lost = Vec::new();
    for (number, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| line.starts_with('|'))
    {
        for place in line.split('`').skip(1).step_by(2) {
            let (path, name) = match place.split_once(':') {
                Some((path, name)) => (path, Some(name)),
                None => (place, None),
            };
            let is_path = path.contains('/') && Path::new(path).extension().is_some();
            if is_path && !is_there(&root.join(path), name) {
                lost.push((number + 1, place.to_owned()));
            }
        }
    }
    lost
}

/// A function, a field, or a primitive's name.
fn is_there(path: &Path, name: Option<&str>) -> bool {
    let Ok(text) = fs::read_to_string(path) else {
        return false;
    };
    let Some(name) = name else { return true };
    let words = [
        format!("fn {name}("),
        format!("fn {name}<"),
        format!("function {name}("),
        format!(".{name}("),
        format!("pub {name}:"),
        format!("\"{name}\","),
    ];
    words.iter().any(|word| text.contains(word.as_str()))
}

/// Rows of a table of three columns in which something stands empty: nothing done, nothing shown.
pub(crate) fn half_rows(text: &str) -> Vec<usize> {
    let rows = text
        .lines()
        .enumerate()
        .filter(|(_, line)| line.starts_with('|'));
    rows.filter(|(_, line)| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let is_place = |cell: &&str| cell.contains('`') || cell.starts_with("---");
        let head = cells.first() == Some(&"the specification");
        cells.len() == 3 && !head && !cells.iter().skip(1).all(is_place)
    })
    .map(|(number, _)| number + 1)
    .collect()
}

#[test]
fn a_place_that_is_gone_is_told() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = "| a | `tests/tidy/places.rs:is_there` | `tests/nowhere.rs` |\n\
                | b | `tests/tidy/places.rs:nobody` | `x` |\n";
    let lost = lost_places(root, text);
    let expected = [
        (1, "tests/nowhere.rs".to_owned()),
        (2, "tests/tidy/places.rs:nobody".to_owned()),
    ];
    assert_eq!(lost, expected);
    assert_eq!(
        half_rows("| a | b | `c` |\n|---|---|---|\n| a | `b` | `c` |"),
        [1]
    );
}

/// The table of the specification beside the stock flow.
#[test]
fn every_place_of_the_specification_s_table_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("flows/README.md")).unwrap();
    assert_eq!(lost_places(root, &text), []);
    assert_eq!(half_rows(&text), Vec::<usize>::new());
    assert!(text.matches("\n| ").count() > 40, "the table is there");
}
