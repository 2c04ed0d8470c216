//! Flows on the real engine and journal, with primitives that write down what they did.

use super::spec::{FnSpec, Registry, Ty};
use super::{LuaRuntime, bind};
use crate::engine::{
    Class, Engine, Handle, LiveValue, NewScript, Probe, Reply, RunEnd, Script, Started,
};
use crate::error::{Error, Kind};
use crate::journal::{Bundle, RunStatus};
use crate::secret::Secret;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

type Done = Arc<Mutex<Vec<String>>>;

/// A world that remembers: `world.touch("x")` is an effect, `world.block("x")` waits for ever.
#[derive(Clone, Default)]
struct World {
    done: Done,
    reached: Arc<Notify>,
}

#[derive(Deserialize)]
struct What {
    what: String,
}

#[derive(Debug)]
struct Door(Done);

impl Handle for Door {
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.0.lock().unwrap().push("closed".into()) })
    }
}

impl World {
    fn registry(&self) -> Arc<Registry> {
        let mut registry = bind::data_only();
        let done = self.done.clone();
        registry.add(
            FnSpec::new("world", "touch", Class::Effect, "Touches.")
                .subject("what", Ty::String, "")
                .run(move |call| {
                    let done = done.clone();
                    async move {
                        let What { what } = call.decode()?;
                        done.lock().unwrap().push(what.clone());
                        if what.starts_with("bad") {
                            return Err(Error::new(Kind::Refused, "it said no").retryable(true));
                        }
                        Ok(Value::from(what).into())
                    }
                }),
        );
        let (done, reached) = (self.done.clone(), self.reached.clone());
        registry.add(
            FnSpec::new("world", "block", Class::EffectProbe, "Never ends.")
                .subject("what", Ty::String, "")
                .probe({
                    let done = done.clone();
                    move |_| {
                        done.lock().unwrap().push("probe".into());
                        async { Ok(Probe::Done(Value::from("found done").into())) }
                    }
                })
                .run(move |call| {
                    let What { what } = call.decode().unwrap();
                    done.lock().unwrap().push(what);
                    reached.notify_one();
                    std::future::pending()
                }),
        );
        let done = self.done.clone();
        registry.add(
            FnSpec::new("world", "open", Class::Live, "Opens.").run(move |_| {
                let done = done.clone();
                async move {
                    done.lock().unwrap().push("opened".into());
                    let mut reply = Reply::default();
                    let door = reply.hold(LiveValue::Handle(Arc::new(Door(done))));
                    let key = reply.hold(LiveValue::Secret(Secret::new("hunter2")));
                    reply.value = json!({ "door": door, "key": key });
                    Ok(reply)
                }
            }),
        );
        let done = self.done.clone();
        registry.add(
            FnSpec::new("world", "use", Class::Effect, "Uses.")
                .subject("key", Ty::Text, "")
                .run(move |call| {
                    let done = done.clone();
                    async move {
                        let reference =
                            crate::engine::LiveRef::from_value(&call.args["key"]).unwrap();
                        let secret = call.secret(&reference).await?;
                        done.lock()
                            .unwrap()
                            .push(format!("used {}", secret.expose()));
                        Ok(Reply::default())
                    }
                }),
        );
        Arc::new(registry)
    }

    fn engine(&self, dir: &Path) -> (Engine, LuaRuntime) {
        let registry = self.registry();
        let runtime = Arc::new(LuaRuntime::new(registry.clone()));
        (
            Engine::new(dir, registry.clone(), runtime).unwrap(),
            LuaRuntime::new(registry),
        )
    }

    fn done(&self) -> Vec<String> {
        self.done.lock().unwrap().clone()
    }
}

fn script(body: &str) -> Script {
    let text = format!(
        "return flow {{ name = 'f', actions = {{ deploy = function(ctx, node, p)\n{body}\nend }} }}"
    );
    let files = [
        ("flows/f.lua".to_owned(), text),
        (
            "flows/site.lua".to_owned(),
            "return { answer = function() return world.touch('site') end }".into(),
        ),
    ];
    Script {
        bundle: Arc::new(Bundle {
            hash: "h".into(),
            files: files.into(),
        }),
        entry: "flows/f.lua".into(),
        action: "deploy".into(),
        params: json!({ "size": 3 }),
        node: json!({ "name": "n", "driver_info": { "deploy_iso": "x" } }),
    }
}

async fn start(engine: &Engine, node: &str, body: &str) -> Started {
    let script = script(body);
    engine
        .start(NewScript {
            flow: "f".into(),
            script,
            node: node.into(),
        })
        .await
        .unwrap()
}

async fn run(body: &str) -> (RunEnd, Vec<String>) {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::default());
    let (engine, _) = world.engine(dir.path());
    let end = start(&engine, "n", body).await.end().await.unwrap();
    (end, world.done())
}

async fn fails(body: &str) -> Error {
    let (end, _) = run(body).await;
    end.error
        .unwrap_or_else(|| panic!("should fail: {body} gave {:?}", end.result))
}

#[tokio::test(flavor = "multi_thread")]
async fn returns_what_the_action_returns() {
    let (end, done) = run(
        "local t = {} for k in pairs({ z = 1, b = 2, [2] = 'x', [1] = 'y' }) do t[#t+1] = k end
         return { keys = t, size = p.size, iso = node.driver_info.deploy_iso, site = require('site').answer() }",
    )
    .await;
    assert_eq!(end.error, None);
    assert_eq!(end.result["keys"], json!([1, 2, "b", "z"]));
    assert_eq!(
        (&end.result["size"], &end.result["iso"]),
        (&json!(3), &json!("x"))
    );
    assert_eq!(done, ["site"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn clean_ups_run_last_first_and_undo_only_on_failure() {
    let body = |end: &str| {
        format!(
            "at_end(function() world.touch('end') end)
             undo(function() world.touch('undo 1') end)
             step('a', function()
               defer(function() world.touch('defer 1') end)
               defer(function() world.touch('defer 2') end)
               undo(function(err) world.touch('undo 2 ' .. err.kind) end)
               world.touch('a')
             end)
             {end}"
        )
    };
    let (end, done) = run(&body("")).await;
    assert_eq!(
        (end.status, done),
        (
            RunStatus::Done,
            vec!["a".into(), "defer 2".into(), "defer 1".into(), "end".into()]
        )
    );
    let (end, done) = run(&body("fail('timeout', 'too late', 'hurry')")).await;
    assert_eq!(end.status, RunStatus::Failed);
    assert_eq!(
        done,
        ["a", "defer 2", "defer 1", "undo 2 timeout", "undo 1", "end"]
    );
    let error = end.error.unwrap();
    assert_eq!(
        (error.kind(), error.advice()),
        (Kind::Timeout, Some("hurry"))
    );
    assert_eq!(error.details()["at"][0], "flows/f.lua:10");
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_name_the_line_and_the_near_miss() {
    let cases = [
        (
            "world.tuoch('x')",
            "there is no world.tuoch",
            Some("did you mean world.touch?"),
        ),
        (
            "wrold.touch('x')",
            "there is no wrold",
            Some("did you mean world?"),
        ),
        (
            "world.touch()",
            "`what` is missing",
            Some("world.touch(what)"),
        ),
        (
            "world.touch('x', { wat = 1 })",
            "there is no option `wat`",
            Some("world.touch(what)"),
        ),
        (
            "counter = 1",
            "assignment to the global counter",
            Some("write `local counter`"),
        ),
        (
            "local x = nil; x.y = 1",
            "attempt to index a nil value (local 'x')",
            None,
        ),
        (
            "step('a', function() end, { tiemout = 3 })",
            "step has no option `tiemout`",
            Some("did you mean timeout?"),
        ),
        ("node.name = 'other'", "node.name cannot be changed", None),
        (
            "require 'stie'",
            "there is no module \"stie\"",
            Some("did you mean site?"),
        ),
        (
            "tostring(setmetatable({}, { __tostring = function() world.touch('x') end }))",
            "a primitive cannot be called here",
            Some("not inside an xpcall handler, or a metamethod that a library function calls"),
        ),
    ];
    for (body, message, hint) in cases {
        let error = fails(body).await;
        assert_eq!(
            (error.kind(), error.message(), error.advice()),
            (
                if message.contains("module") {
                    Kind::NotFound
                } else {
                    Kind::Invalid
                },
                message,
                hint
            ),
            "{body}"
        );
        let at = error.details()["at"].to_string();
        assert!(at.contains("flows/f.lua:2"), "{body}: {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outside_cannot_be_reached() {
    for name in [
        "os",
        "io",
        "debug",
        "load",
        "loadstring",
        "dofile",
        "coroutine",
        "package",
        "collectgarbage",
    ] {
        let error = fails(&format!("return {name}")).await;
        assert_eq!(error.message(), format!("there is no {name}"));
    }
    assert_eq!(
        fails("return math.random()").await.message(),
        "there is no math.random"
    );
    assert_eq!(
        fails("return ('x').dump").await.message(),
        "there is no string.dump"
    );
    let (end, _) =
        run("return { tostring({}), string.format('%s', print), tostring(world.open().key) }")
            .await;
    assert_eq!(end.result, json!(["table", "function", "<world.open#1>"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold() {
    assert_eq!(
        fails("local t = {} while true do t[#t + 1] = ('x'):rep(1000000) .. #t end")
            .await
            .kind(),
        Kind::Limit
    );
    assert_eq!(fails("return ('x'):rep(1e9)").await.kind(), Kind::Limit);
    let error = fails("return (('a'):rep(60)):find(('.-'):rep(8) .. 'b')").await;
    assert!(error.message().contains("too many steps"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn text_functions_agree_with_lua() {
    let (end, _) = run(
        "local words = {} for w in ('one two  three'):gmatch('%a+') do words[#words + 1] = w end
         return { words, { ('hello world'):gsub('o', '0') }, { ('abc'):gsub('', '-') },
           { ('k=v'):match('(%w)=(%w)') },
           { ('x y'):gsub('%w', { x = '1' }) }, { ('a.b'):find('.', 1, true) },
           { ('hello'):gsub('l', function() return 'L' end, 1) },
           ('%d items'):format(3), (function() local t = { 5, 3, 9, 1, 7 } table.sort(t, function(a, b) world.touch('sorting') return a > b end) return t end)(), { ('abc'):gsub('%w', '%0%0') } }",
    )
    .await;
    assert_eq!(end.error, None);
    assert_eq!(
        end.result,
        json!([
            ["one", "two", "three"],
            ["hell0 w0rld", 2],
            ["-a-b-c-", 4],
            ["k", "v"],
            ["1 y", 2],
            [2, 2],
            ["heLlo", 1],
            "3 items",
            [9, 7, 5, 3, 1],
            ["aabbcc", 3]
        ])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_without_end_is_stopped_while_others_go_on() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::default());
    let (engine, _) = world.engine(dir.path());
    let looping = start(
        &engine,
        "n1",
        "undo(function() world.touch('undone') end)
         step('spin', function() defer(function() world.touch('deferred') end)
           while true do pcall(function() while true do end end) end
         end, { timeout = '200ms' })",
    )
    .await;
    let in_c = start(
        &engine,
        "n2",
        "step('c', function() tostring(setmetatable({}, { __tostring = function() while true do end end })) end, { timeout = '200ms' })",
    )
    .await;
    let other = start(&engine, "n3", "world.touch('other')")
        .await
        .end()
        .await
        .unwrap();
    assert_eq!(other.status, RunStatus::Done);
    let end = looping.end().await.unwrap();
    assert_eq!(
        (end.status, end.error.unwrap().kind()),
        (RunStatus::Failed, Kind::Timeout)
    );
    assert_eq!(in_c.end().await.unwrap().status, RunStatus::Failed);
    assert_eq!(world.done(), ["other", "deferred", "undone"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_ends_at_its_deadline_and_retry_tries_again() {
    let error = fails("step('wait', function() world.block('x') end, { timeout = '50ms' })").await;
    assert_eq!(
        (error.kind(), error.message()),
        (Kind::Timeout, "step 'wait' ran out of time")
    );
    assert_eq!(error.operation(), "world.block");
    let (end, done) = run(
        "return step('try', function() if #(world.touch('x')) > 0 then world.touch('bad') end end,
           { retry = { times = 3, delay = '1ms' } })",
    )
    .await;
    assert_eq!(end.error.unwrap().kind(), Kind::Refused);
    assert_eq!(done, ["x", "bad", "x", "bad", "x", "bad"]);
    let (end, _) = run(
        "local v, err = try(function() world.touch('bad') end) return { err.kind, tostring(err) }",
    )
    .await;
    assert_eq!(
        end.result,
        json!(["refused", "world.touch: it said no [refused]"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_run_side_by_side_and_the_first_failure_cancels() {
    let (end, _) = run("return parallel { a = function() return world.touch('a') end, b = function() sleep('1ms') return 2 end }").await;
    assert_eq!(end.result, json!({ "a": "a", "b": 2 }));
    let (end, done) = run(
        "parallel { a = function() defer(function() world.touch('tidied') end) world.block('a') end,
                    b = function() sleep('20ms') world.touch('bad') end }",
    )
    .await;
    assert_eq!(end.error.unwrap().kind(), Kind::Refused);
    assert_eq!(done, ["a", "bad", "tidied"]);
    let (end, _) =
        run("return each({ 3, 1, 2 }, function(x) return x * 10 end, { limit = 2 })").await;
    assert_eq!(end.result, json!([30, 10, 20]));
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_unwinds_and_cannot_be_caught() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::default());
    let (engine, _) = world.engine(dir.path());
    let started = start(
        &engine,
        "n",
        "undo(function() world.touch('undone') end)
         pcall(function() world.block('blocked') end)
         world.touch('must not happen')",
    )
    .await;
    world.reached.notified().await;
    engine.cancel(&started.id).await.unwrap();
    let end = started.end().await.unwrap();
    assert_eq!(end.status, RunStatus::Cancelled);
    assert_eq!(world.done(), ["blocked", "undone"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_run_goes_on_where_it_was() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::default());
    let body = "local opened = world.open()
         world.touch('one')
         local seen = step('two', function() world.touch('two') return now() end)
         local how = world.block('three')
         world.use(opened.key)
         return { seen = seen, how = how }";
    let (engine, _) = world.engine(dir.path());
    let started = start(&engine, "n", body).await;
    let id = started.id.clone();
    world.reached.notified().await;
    engine.stop();
    assert_eq!(started.end().await.unwrap().status, RunStatus::Stopped);
    assert_eq!(world.done(), ["opened", "one", "two", "three", "closed"]);

    let (engine, _) = world.engine(dir.path());
    let other = engine
        .start(NewScript {
            flow: "f".into(),
            script: script(""),
            node: "n".into(),
        })
        .await;
    assert_eq!(
        other.unwrap_err().kind(),
        Kind::Conflict,
        "the node is still held"
    );
    let record = engine.journal().find_run(&id[..8]).await.unwrap();
    let end = engine
        .resume(record, false)
        .await
        .unwrap()
        .end()
        .await
        .unwrap();
    assert_eq!(end.error, None);
    assert_eq!(end.result["how"], "found done");
    // The device was asked, the secret fetched again; nothing was touched twice.
    assert_eq!(
        world.done()[5..],
        ["probe", "opened", "used hunter2", "closed"]
    );
    for file in ["journal.db", "journal.db-wal"] {
        let bytes = std::fs::read(dir.path().join(file)).unwrap_or_default();
        assert!(
            !bytes.windows(7).any(|w| w == b"hunter2"),
            "secret in {file}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_leaves_its_recorded_path_stops() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::default());
    let (engine, _) = world.engine(dir.path());
    let started = start(
        &engine,
        "n",
        "undo(function() world.touch('undo') end) world.touch('one') world.block('x')",
    )
    .await;
    let id = started.id.clone();
    world.reached.notified().await;
    engine.stop();
    started.end().await.unwrap();
    assert_eq!(
        crate::journal::edit_for_test(dir.path(), &id, "world.touch#1"),
        1
    );
    let (engine, _) = world.engine(dir.path());
    let record = engine.journal().find_run(&id).await.unwrap();
    let end = engine
        .resume(record, false)
        .await
        .unwrap()
        .end()
        .await
        .unwrap();
    assert_eq!(end.status, RunStatus::Stuck);
    assert!(
        end.error.unwrap().message().contains("does not repeat"),
        "loud"
    );
    assert_eq!(
        world.done(),
        ["one", "x"],
        "nothing was done, not even undone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_up_that_fails_marks_the_run_and_keeps_the_first_error() {
    let (end, done) = run("undo(function() world.touch('last') end)
         undo(function() world.touch('bad undo') end)
         fail('io', 'first')")
    .await;
    assert_eq!(end.status, RunStatus::Stuck);
    let error = end.error.unwrap();
    assert_eq!(error.message(), "first");
    assert!(
        error.causes()[0].starts_with("clean-up failed: world.touch: it said no"),
        "{:?}",
        error.causes()
    );
    assert_eq!(done, ["bad undo", "last"]);
}

#[test]
fn a_flow_is_checked_when_it_is_loaded() {
    let runtime = LuaRuntime::new(World::default().registry());
    let load = |text: &str| {
        let files = [("flows/f.lua".to_owned(), text.to_owned())].into();
        runtime.inspect(
            &Arc::new(Bundle {
                hash: "h".into(),
                files,
            }),
            "flows/f.lua",
        )
    };
    let good = "return flow { name = 'f', summary = 's', actions = { a = function() end, deploy = function() end } }";
    assert_eq!(load(good).unwrap().default.as_deref(), Some("deploy"));
    for (text, message) in [
        (
            "return flow { name = 'f', action = {} }",
            "flow has no option `action`",
        ),
        ("return 3", "flows/f.lua does not return a flow"),
        (
            "world.touch('x') return flow { name = 'f', actions = {} }",
            "world.touch cannot be called while the file loads",
        ),
        ("return flow {", "unexpected symbol near <eof>"),
    ] {
        let error = load(text).unwrap_err();
        assert!(error.message().contains(message), "{text}: {error}");
        assert_eq!(error.kind(), Kind::Invalid);
    }
}
