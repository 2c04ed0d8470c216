//! Primitives that only look as if: they answer what the type of their result says.
//!
//! What a loop waits for has to come: the same call at the same place is answered with the next
//! state each time it is made. A loop that waits for something else is ended by a count.

use super::dry_run::Simulate;
use super::spec::{FnSpec, Record, Registry, Ty};
use crate::clock;
use crate::engine::{Call, Class, LiveValue, Primitive, Primitives, Probe, Reply, step_of};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How often one place may make the same call, and how many calls a run may make.
const MAX_REPEATS: usize = 64;
const MAX_CALLS: usize = 4000;

/// A call as a dry run saw it.
#[derive(Debug, Clone, Serialize)]
pub struct SimulatedCall {
    /// Its key; the path of its step stands before the last `/`.
    pub key: String,
    /// The primitive.
    pub name: String,
    /// Its crash class.
    pub class: Class,
    /// Whether it was executed, since it touches nothing.
    pub executed: bool,
    /// `file:line` that made it.
    pub site: String,
    /// The quirk whose code made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quirk: Option<String>,
    /// Its arguments, defaults included; secrets are references.
    pub args: Value,
}

/// The simulated site of one dry run.
#[derive(Debug, Clone)]
pub(super) struct Simulation {
    registry: Arc<Registry>,
    state: Arc<Mutex<State>>,
    how: Simulate,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<SimulatedCall>,
    made: HashMap<(String, String, String), usize>,
    /// How far the clock of the run is ahead.
    slept_seconds: f64,
    /// What was set, for those who look at it.
    facts: HashMap<&'static str, Value>,
    /// The first primitive whose answer has no known shape.
    shapeless: Option<String>,
}

impl Simulation {
    pub(super) fn new(registry: Arc<Registry>, how: Simulate) -> Self {
        Self {
            registry,
            state: Arc::default(),
            how,
        }
    }

    /// Takes out what was called so far.
    pub(super) fn calls(&self) -> Vec<SimulatedCall> {
        std::mem::take(&mut self.state().calls)
    }

    /// The first primitive that was answered with an empty table for want of a type.
    pub(super) fn shapeless(&self) -> Option<String> {
        self.state().shapeless.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, spec: &FnSpec, call: &Call) -> Result<Reply> {
        let mut state = self.state();
        let number = state.calls.len();
        let place = (call.site.clone(), call.name.clone(), call.args.to_string());
        let times = state.made.entry(place).or_default();
        let nth = *times;
        *times += 1;
        state.calls.push(SimulatedCall {
            key: call.key.clone(),
            name: call.name.clone(),
            class: spec.class,
            executed: spec.inert,
            site: call.site.clone(),
            quirk: quirk_of(&call.key),
            args: call.args.clone(),
        });
        let may_repeat = spec.inert || spec.module.is_empty();
        if number >= MAX_CALLS || (nth >= MAX_REPEATS && !may_repeat) {
            let error = endless(number, call);
            call.run.abandon(error.clone());
            return Err(error);
        }
        if self.how.fails_at == Some(number) {
            let failed = Error::new(Kind::Refused, "simulated failure");
            return Err(failed.detail("simulated", true));
        }
        match spec.full_name().as_str() {
            "sleep" => {
                let seconds = call.args.get("duration").and_then(Value::as_f64);
                state.slept_seconds += seconds.unwrap_or_default();
                Ok(Reply::default())
            }
            "now" => {
                // A loop that asks for the time without sleeping ends too.
                state.slept_seconds += 1.0;
                let ahead = std::time::Duration::try_from_secs_f64(state.slept_seconds);
                Ok(Value::from(clock::unix_seconds() + ahead.unwrap_or_default().as_secs()).into())
            }
            _ => {
                if spec.returns.0 == Ty::Any && spec.simulated.is_none() {
                    state.shapeless.get_or_insert_with(|| call.name.clone());
                }
                Ok(self.typed(&mut state, spec, call, nth))
            }
        }
    }
}

impl Simulation {
    fn typed(&self, state: &mut State, spec: &FnSpec, call: &Call, nth: usize) -> Reply {
        let known = spec.fact.and_then(|fact| state.facts.get(fact).cloned());
        let reply = match (spec.class, known) {
            (Class::Read, Some(known)) => simulated(spec, Some(&known), nth),
            _ => {
                let given = spec.simulated.as_ref().map(|answer| answer(&call.args));
                simulated(spec, given.as_ref(), nth + self.how.shift)
            }
        };
        if let (Some(fact), false) = (spec.fact, spec.class == Class::Read) {
            state.facts.insert(fact, reply.value.clone());
        }
        reply
    }
}

fn endless(number: usize, call: &Call) -> Error {
    let message = match number >= MAX_CALLS {
        true => format!("more than {MAX_CALLS} calls"),
        false => format!("called {MAX_REPEATS} times here with the same arguments"),
    };
    Error::new(Kind::Limit, message)
        .op(call.name.clone())
        .detail("at", vec![Value::from(call.site.clone())])
        .hint("a dry run gives each possible answer in turn, and none of them ends this loop")
}

/// The `quirk ID` step nearest to the call, if it stands in one.
fn quirk_of(key: &str) -> Option<String> {
    let mut steps = step_of(key).rsplit('/');
    let id = steps.find_map(|step| step.strip_prefix("quirk "))?;
    Some(id.split('#').next().unwrap_or(id).to_owned())
}

/// The answer to the `nth` such call.
fn simulated(spec: &FnSpec, given: Option<&Value>, nth: usize) -> Reply {
    let mut reply = Reply::default();
    reply.value = value(&mut reply, &spec.returns.0, given, spec.name, nth);
    reply
}

/// A value of this type. `given` is what the primitive's declaration says; states go on from it.
fn value(reply: &mut Reply, ty: &Ty, given: Option<&Value>, name: &str, nth: usize) -> Value {
    match (ty, given) {
        (_, Some(Value::Null)) => Value::Null,
        (Ty::Enum(words), given) => {
            let first = given.and_then(Value::as_str);
            let first = first.and_then(|first| words.iter().position(|word| *word == first));
            let word = words.get((first.unwrap_or(0) + nth) % words.len().max(1));
            word.map_or(Value::Null, |word| Value::from(*word))
        }
        (Ty::Boolean, given) => {
            Value::Bool(given.and_then(Value::as_bool).unwrap_or(true) == nth.is_multiple_of(2))
        }
        (Ty::Record(record), given) => fields(reply, record, given, nth),
        (Ty::List(item), given) => match given.and_then(Value::as_array) {
            Some(items) => {
                let items = items.iter();
                items
                    .map(|g| value(reply, item, Some(g), name, nth))
                    .collect()
            }
            None if nth.is_multiple_of(2) => json!([value(reply, item, None, name, nth)]),
            None => json!([]),
        },
        (Ty::Live(_) | Ty::Text, _) => reply.hold(LiveValue::Secret(Secret::new("simulated"))),
        (_, Some(given)) => given.clone(),
        (Ty::Node | Ty::String, None) => Value::from(format!("<{name}>")),
        (Ty::Integer, None) => Value::from([1, 0, 100, 1 << 30].get(nth % 4).copied()),
        (Ty::Duration, None) => Value::from(60),
        (Ty::Size, None) => Value::from(1_u64 << 30),
        (Ty::Map(_) | Ty::Any, None) => json!({}),
        (Ty::Nothing, None) => Value::Null,
    }
}

fn fields(reply: &mut Reply, record: &Record, given: Option<&Value>, nth: usize) -> Value {
    // What a record carries beyond its type.
    let mut fields = given
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let mut typed = Map::new();
    for (name, ty, _) in record.fields {
        let field = value(reply, ty, fields.get(*name), name, nth);
        typed.insert((*name).to_owned(), field);
    }
    fields.append(&mut typed);
    Value::Object(fields)
}

impl Primitives for Simulation {
    fn find(&self, name: &str) -> Option<Arc<dyn Primitive>> {
        let spec = self.registry.get(name).ok()?.clone();
        let simulation = self.clone();
        Some(Arc::new(Simulated { spec, simulation }))
    }
}

struct Simulated {
    spec: Arc<FnSpec>,
    simulation: Simulation,
}

impl Primitive for Simulated {
    fn class(&self) -> Class {
        self.spec.class
    }

    fn recorded(&self) -> bool {
        self.spec.recorded
    }

    fn execute(&self, call: Call) -> BoxFuture<'static, Result<Reply>> {
        let answer = self.simulation.answer(&self.spec, &call);
        if self.spec.inert && answer.is_ok() {
            return self.spec.execute(call);
        }
        Box::pin(std::future::ready(answer))
    }

    fn still_holds(&self, _call: Call, _result: Value) -> BoxFuture<'static, bool> {
        Box::pin(std::future::ready(true))
    }

    fn probe(&self, _call: Call) -> BoxFuture<'static, Result<Probe>> {
        Box::pin(std::future::ready(Ok(Probe::NotDone)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRIVE: Record = Record {
        name: "Drive",
        doc: "",
        fields: &[
            ("state", Ty::Enum(&["off", "starting", "on"]), ""),
            ("inserted", Ty::Boolean, ""),
            ("label", Ty::String, ""),
        ],
    };

    fn answers(nth: usize) -> Value {
        let spec = FnSpec::new("x", "y", Class::Read, "")
            .returns(Ty::Record(&DRIVE), "")
            .simulated(|args| json!({ "state": "starting", "more": args["a"] }));
        let given = spec.simulated.as_ref().unwrap()(&json!({ "a": 7 }));
        simulated(&spec, Some(&given), nth).value
    }

    #[test]
    fn answers_go_through_every_state_from_the_one_given() {
        let first = json!({ "state": "starting", "inserted": true, "label": "<label>", "more": 7 });
        assert_eq!(answers(0), first);
        assert_eq!(answers(1)["state"], "on");
        assert_eq!(answers(2)["state"], "off");
        assert_eq!(answers(1)["inserted"], false);
    }

    #[test]
    fn a_call_below_a_quirk_is_the_quirk_s() {
        let key = "boot/quirk slow-media#2/ilo.eject_vmedia#1";
        assert_eq!(quirk_of(key).as_deref(), Some("slow-media"));
        assert_eq!(quirk_of("boot/ilo.eject_vmedia#1"), None);
    }
}
