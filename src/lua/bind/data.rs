//! `json` and `hash`: functions of their arguments.

use crate::engine::{Class, Reply};
use crate::error::{Error, Kind, Result};
use crate::lua::spec::{FnSpec, Registry, Ty};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct Encode {
    #[serde(default)]
    value: Value,
    #[serde(default)]
    pretty: bool,
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

pub(super) fn register(registry: &mut Registry) {
    registry.add(
        FnSpec::new(
            "json",
            "encode",
            Class::Pure,
            "Writes data as JSON, keys sorted.",
        )
        .subject("value", Ty::Any, "data; an empty table is written as {}")
        .default(
            "pretty",
            Ty::Boolean,
            false,
            "whether to break lines and indent",
        )
        .returns(Ty::String, "the JSON text")
        .example("json.encode({ b = 1, a = { 2 } })   --> {\"a\":[2],\"b\":1}")
        .unrecorded()
        .inert()
        .run(|call| async move {
            let Encode { value, pretty } = call.decode()?;
            let text = if pretty {
                format!("{value:#}")
            } else {
                value.to_string()
            };
            Ok(Value::from(text).into()) as Result<Reply>
        }),
    );
    registry.add(
        FnSpec::new(
            "json",
            "decode",
            Class::Pure,
            "Reads JSON; null becomes nil.",
        )
        .subject("text", Ty::String, "the JSON text")
        .returns(Ty::Any, "the data")
        .error(
            Kind::Invalid,
            "the text is not JSON; the message says where",
        )
        .example("json.decode('{\"a\":[1,2]}').a[2]   --> 2")
        .unrecorded()
        .inert()
        .run(|call| async move {
            let Text { text } = call.decode()?;
            serde_json::from_str::<Value>(&text)
                .map(Reply::from)
                .map_err(|e| Error::new(Kind::Invalid, format!("not JSON: {e}")))
        }),
    );
    registry.add(
        FnSpec::new("hash", "sha256", Class::Pure, "Hashes a text with SHA-256.")
            .subject("text", Ty::String, "the text, as UTF-8")
            .returns(Ty::String, "64 hex digits")
            .example("hash.sha256(\"abc\")   --> ba7816bf8f01cfea414140de5dae2223…")
            .unrecorded()
            .inert()
            .run(|call| async move {
                let Text { text } = call.decode()?;
                Ok(Value::from(hex::encode(Sha256::digest(text.as_bytes()))).into())
            }),
    );
}
