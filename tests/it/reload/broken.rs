//! Edits that are wrong: told with file, line and excerpt, and what was good stays.

use super::{Flows, light, until, until_text};

/// What is written, to which file, what is said, where, and the line that is shown.
const BROKEN: &[(&str, &str, &str, &str, &str)] = &[
    (
        "light.lua",
        "return flow {\n  name = 'light',\n  actions = { go = function( end },\n}\n",
        "expected near 'end'",
        "light.lua:3",
        ">    3 |   actions = { go = function( end },",
    ),
    (
        "light.lua",
        "local m = require 'modul'\nreturn flow { name = 'light', actions = { go = m.go } }\n",
        "there is no module \"modul\"",
        "light.lua:1",
        ">    1 | local m = require 'modul'",
    ),
    (
        "light.lua",
        "return flow {\n  name = 'light', acitons = {},\n}\n",
        "flow has no option `acitons`",
        "light.lua:3",
        ">    3 | }",
    ),
    (
        "light.lua",
        "return { name = 'light', actions = { go = function() end } }\n",
        "was a flow and is none any more",
        "light.lua:1",
        "",
    ),
    ("light.lua", "", "returns nothing", "light.lua:1", ""),
    (
        "light.lua",
        "local function go()\n  return 1\nend\n",
        "returns nothing",
        "light.lua:3",
        ">    3 | end",
    ),
    (
        "module.lua",
        "local m = {}\nm.answer = undefined_name\nreturn m\n",
        "there is no undefined_name",
        "module.lua:2",
        ">    2 | m.answer = undefined_name",
    ),
    (
        "power.lua",
        "local power = require 'stock:power'\nreturn { on = power.on, off = power.off }\n",
        "lacks power.reboot",
        "power.lua:2",
        ">    2 | return",
    ),
    (
        "quirks/q.lua",
        "quirk {\n  id = 'q', why = 'w', match = { ilo = 5 },\n  warp = {},\n}\n",
        "warp",
        "quirks/q.lua:1",
        ">    1 | quirk {",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_edit_is_told_and_the_last_good_version_stays() {
    let flows = Flows::new();
    flows.write_light(1);
    let catalogue = flows.open().await;
    let good = catalogue.flow("light").unwrap().version.hash.clone();
    for (file, text, message, place, line) in BROKEN {
        flows.write(file, text);
        let state = until(&catalogue, message, |state| {
            let faults = state.broken.iter().flat_map(|edit| &edit.faults);
            faults
                .clone()
                .any(|fault| fault.error.message().contains(message))
        })
        .await;
        let broken = state.broken.as_ref().unwrap();
        assert_eq!(broken.faults.len(), 1, "{message}: {broken:#?}");
        let fault = &broken.faults[0];
        let at = fault.at.as_deref().unwrap_or_default();
        assert!(at.ends_with(place), "{message}: {fault:?}");
        assert!(fault.to_string().contains(line), "{message}: {fault}");
        assert_eq!(catalogue.flow("light").unwrap().version.hash, good);

        flows.write_light(1);
        if *file != "light.lua" {
            std::fs::remove_file(flows.path("flows").join(file)).unwrap();
        }
        until(&catalogue, "the mended file", |state| {
            state.broken.is_none()
        })
        .await;
        assert_eq!(catalogue.flow("light").unwrap().version.hash, good);
    }
    let last = flows.engine().journal().last_broken_edit().await.unwrap();
    assert!(last.unwrap().broken.unwrap().to_string().contains("warp"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_never_ends_loading_is_a_broken_edit() {
    let flows = Flows::new();
    flows.write_light(1);
    let catalogue = flows.open().await;
    flows.write(
        "light.lua",
        "while true do pcall(function() while true do end end) end",
    );
    let state = until(&catalogue, "the loop", |state| state.broken.is_some()).await;
    let said = state.broken.as_ref().unwrap().faults[0].to_string();
    assert!(said.contains("computes without end"), "{said}");
    flows.write_light(2);
    until_text(&catalogue, "the mended file", &light(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_good_stays_over_a_restart() {
    let flows = Flows::new();
    flows.write_light(1);
    let good = flows
        .open()
        .await
        .flow("light")
        .unwrap()
        .version
        .hash
        .clone();
    flows.write("light.lua", "return flow {");
    let catalogue = flows.open().await;
    assert!(catalogue.state().broken.is_some());
    assert_eq!(catalogue.flow("light").unwrap().version.hash, good);

    let nothing = Flows::new();
    nothing.write("light.lua", "return flow {");
    let catalogue = nothing.open().await;
    let error = catalogue.flow("light").unwrap_err();
    assert!(
        error.causes()[0].contains("the last edit is broken"),
        "{error:?}"
    );
    nothing.write_light(1);
    until_text(&catalogue, "the mended file", &light(1)).await;
}
