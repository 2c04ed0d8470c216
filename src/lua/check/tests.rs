//! Seeded mistakes, each found on its line.

use super::*;
use crate::engine::seal_bundle;
use crate::lua::bind::{Site, registry};

const FLOW: &str = "flows/f.lua";

async fn findings(files: &[(&str, &str)]) -> Vec<Finding> {
    let registry = Arc::new(registry(&Arc::new(Site::default())));
    let mut all = stdlib::modules();
    all.extend(
        files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned())),
    );
    check(&registry, &Arc::new(seal_bundle(all))).await
}

/// A flow whose only action is `body`, which begins on line 3.
fn action(body: &str) -> String {
    format!(
        "local power = require \"power\"\nlocal function act(ctx, node, p)\n{body}\nend\n\
         return flow {{ name = \"f\", actions = {{ act = act }} }}\n"
    )
}

fn shown(findings: &[Finding]) -> Vec<String> {
    let lines = findings.iter().map(|f| {
        let hint = f.hint.as_deref().unwrap_or_default();
        format!("{:?} {}:{} {} ({hint})", f.level, f.path, f.line, f.message)
    });
    lines.collect()
}

/// Body of an action; line of the mistake; what is said of it, hint included.
const MISTAKES: &[(&str, u32, &str)] = &[
    (
        "ilo.attach_vmeida(node, {})",
        3,
        "there is no ilo.attach_vmeida (did you mean ilo.attach_vmedia?)",
    ),
    (
        "if ctx.never then\n  ilo.atach_vmedia(node)\nend",
        4,
        "did you mean ilo.attach_vmedia?",
    ),
    ("local t = os.time()", 3, "there is no os"),
    ("lgo.info('x')", 3, "there is no lgo (did you mean log?)"),
    ("string.fmt('x')", 3, "there is no string.fmt"),
    (
        "count = 1",
        3,
        "assignment to the global count (write `local count`)",
    ),
    (
        "power.of(node)",
        3,
        "the module power has no of (did you mean off?)",
    ),
    (
        "undo(function()\n  power.rset(node)\nend)",
        4,
        "the module power has no rset (did you mean reset?)",
    ),
    (
        "require 'powr'",
        3,
        "there is no module \"powr\" (did you mean power?)",
    ),
    ("ilo:info(node)", 3, "call it with a dot: ilo.info"),
    (
        "ilo.set_power(node, {\n  state = 'on',\n  tiemout = '3m',\n})",
        5,
        "ilo.set_power: there is no option `tiemout` (did you mean `timeout`?)",
    ),
    (
        "ilo.set_power(node, { state = 'force-off' })",
        3,
        "`state` must be \"on\", \"off\", \"force_off\", \"reset\", \"restart\" or \"cold_boot\", not \
         \"force-off\" (did you mean \"force_off\"?)",
    ),
    (
        "ilo.set_power(node, { state = 'on', timeout = '3 minits' })",
        3,
        "`timeout` must be a duration",
    ),
    (
        "ilo.set_power(node)",
        3,
        "ilo.set_power: `state` is missing",
    ),
    (
        "ilo.set_power(node, 'on')",
        3,
        "the options must be a table, not \"on\"",
    ),
    (
        "if p.x then ilo.power_state() end",
        3,
        "ilo.power_state: `node` is missing",
    ),
    (
        "if p.x then ilo.power_state(node, nil, 3) end",
        3,
        "ilo.power_state: too many arguments",
    ),
    (
        "if p.x then sleep('soon') end",
        3,
        "sleep: `duration` must be a duration",
    ),
    (
        "if p.x then image.make_vfat { parameters = { a = 1 } } end",
        3,
        "`parameters.a` must be a text or secret, not 1",
    ),
    (
        "step('x', function() end, { tiemout = '3m' })",
        3,
        "step has no option `tiemout` (did you mean timeout?)",
    ),
    (
        "step('x', function() end, { retry = { tmes = 3 } })",
        3,
        "retry has no option `tmes`",
    ),
    (
        "step('x', function() end, { timeout = 'long' })",
        3,
        "step: timeout must be a duration",
    ),
    (
        "if p.x then fail('invald', 'no') end",
        3,
        "there is no error kind \"invald\" (did you mean \"invalid\"?)",
    ),
    (
        "local n = nil\nreturn n.x",
        4,
        "attempt to index a nil value (local 'n')",
    ),
    (
        "local function f() return node.nmae .. 'x' end\nf()",
        3,
        "attempt to concatenate a nil value",
    ),
    (
        "undo(function() local n = nil; n.x() end)\npower.off(node)",
        3,
        "attempt to index a nil value",
    ),
    ("node.name = 'x'", 3, "node.name cannot be changed"),
    ("ilo.info(node", 4, "')' expected"),
    (
        "local s = 'it is ' .. now",
        3,
        "attempt to concatenate a function value",
    ),
];

#[tokio::test]
async fn mistakes_are_found_where_they_stand() {
    let mut missed = Vec::new();
    for (body, line, wanted) in MISTAKES {
        let found = findings(&[(FLOW, &action(body))]).await;
        let said = shown(&found);
        let errors = found.iter().filter(|f| f.level == Level::Error);
        let lines: Vec<_> = errors.map(|f| f.line).collect();
        if lines != [*line] || !said.iter().any(|text| text.contains(wanted)) {
            missed.push(format!(
                "{body}\n  wanted {line}: {wanted}\n  found {said:#?}"
            ));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// What a check must not complain about.
const FINE: &[&str] = &[
    "local o = {}\no.state = p.fast and 'reset' or 'restart'\nilo.set_power(node, o)",
    "local ilo = { anything = function() end }\nilo.anything(node)",
    "while ilo.boot_device(node).enabled == 'once' do sleep('2s') end",
    "while ilo.power_state(node) ~= 'off' do sleep('2s') end",
    "local till = now() + 3600\nwhile now() < till do sleep('10s') end",
    "for i = 1, 200 do sleep('1s') end",
    "local wait = { timeout = p.x or '1m' }\nstep('a', function() end, wait)",
    "log.info('%s %d', node.name, #node.ports)",
    "local set = ilo.set_power\nset(node, { state = 'on' })",
    "local v, err = try(ilo.info, node)\nif not v then fail(err.kind, err.message) end",
    "each({ 'cdrom', 'floppy' }, function(d) ilo.eject_vmedia(node, { device = d }) end, { limit = 1 })",
    "local text = ('%d'):format(3)\nreturn text:upper()",
    "local _, ok = pcall(json.decode, '{')\nreturn ok",
    "http.request { url = 'https://x/', ok = { 200, 404 }, headers = { a = secrets.get('k') } }",
];

#[tokio::test]
async fn what_is_right_is_left_alone() {
    for body in FINE {
        let found = findings(&[(FLOW, &action(body))]).await;
        assert!(found.is_empty(), "{body}: {:#?}", shown(&found));
    }
}

#[tokio::test]
async fn what_a_check_cannot_tell_is_a_warning() {
    for (body, wanted) in [
        (
            "while true do ilo.power_state(node) end",
            "none of them ends this loop",
        ),
        (
            "while true do try(ilo.power_state, node) end",
            "none of them ends this loop",
        ),
        (
            "fail('conflict', 'not today')",
            "the dry run of act ends here: not today",
        ),
        ("error('no such rack')", "ends here: no such rack"),
        (
            "return ilo.request(node, { path = '/x' }).Links.Chassis",
            "answers ilo.request with an empty table",
        ),
    ] {
        let found = findings(&[(FLOW, &action(body))]).await;
        let said = shown(&found);
        assert!(
            said.len() == 1 && found[0].level == Level::Warning,
            "{said:#?}"
        );
        assert!(
            said[0].contains(wanted) && found[0].line == 3,
            "{wanted}: {said:#?}"
        );
    }
}

#[tokio::test]
async fn quirks_are_checked_with_the_flows_beside_them() {
    let flow = action("step('insert media', function() power.on(node) end)");
    let quirk = |fields: &str| format!("quirk {{ id = 'q', why = 'w',\n{fields} }}");
    for (fields, line, wanted) in [
        (
            "match = { firmwre = '1' }",
            1,
            "has no option `firmwre` (did you mean firmware?)",
        ),
        (
            "wrap = { ['ilo.atach_vmedia'] = function() end }",
            1,
            "did you mean ilo.attach_vmedia?",
        ),
        (
            "wrap = { ['ilo.info'] = function(next, n)\n  ilo.infoo(n) end }",
            3,
            "did you mean ilo.info?",
        ),
        (
            "around = { ['insert meda'] = function(next) next() end }",
            1,
            "did you mean \"insert media\"?",
        ),
    ] {
        let found = findings(&[(FLOW, &flow), ("flows/quirks/q.lua", &quirk(fields))]).await;
        let said = shown(&found);
        assert_eq!(said.len(), 1, "{fields}: {said:#?}");
        assert!(said[0].contains(wanted), "{fields}: {said:#?}");
        assert_eq!(
            (found[0].path.as_str(), found[0].line),
            ("flows/quirks/q.lua", line)
        );
    }
}

#[tokio::test]
async fn modules_are_checked_with_the_flow() {
    let flow = "local rack = require 'rack'\nreturn flow { name = 'f', actions = {\n  \
        a = function() return rack.fnd() end } }";
    let module = "local rack = {}\nfunction rack.find() return prnt('x') end\nreturn rack\n";
    let found = findings(&[(FLOW, flow), ("flows/rack.lua", module)]).await;
    let said = shown(&found);
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(
        said[0].contains("flows/f.lua:3 the module rack has no fnd (did you mean find?)"),
        "{said:#?}"
    );
    assert!(
        said[1].contains("flows/rack.lua:2 there is no prnt (did you mean print?)"),
        "{said:#?}"
    );
}

#[tokio::test]
async fn a_script_that_computes_for_ever_does_not_hang_the_check() {
    let found = findings(&[(FLOW, &action("while true do end"))]).await;
    assert_eq!(found.len(), 1, "{:#?}", shown(&found));
}

#[tokio::test]
async fn the_stock_flows_and_library_are_clean() {
    let files: Vec<(String, String)> = stdlib::flows().into_iter().collect();
    let files: Vec<_> = files
        .iter()
        .map(|(p, t)| (p.as_str(), t.as_str()))
        .collect();
    let found = findings(&files).await;
    assert!(found.is_empty(), "{:#?}", shown(&found));
}
