//! Requests of the author's own, for quirks.

use super::super::args::{Seconds, Text};
use super::super::site::Site;
use super::spec;
use crate::engine::Class;
use crate::error::{Error, Kind};
use crate::lua::spec::{Record, Registry, Ty};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

const ELEMENT: Record = Record {
    name: "RibclElement",
    doc: "An element of a RIBCL answer.",
    fields: &[
        ("name", Ty::String, "as the iLO writes it"),
        (
            "attributes",
            Ty::Map(&Ty::String),
            "by name in capitals, entities decoded",
        ),
        ("text", Ty::String, "up to the next tag"),
        (
            "children",
            Ty::List(&Ty::Any),
            "the elements in it, of the same shape",
        ),
    ],
};

const ANSWER: Record = Record {
    name: "RibclAnswer",
    doc: "What an iLO answers to RIBCL commands; credentials, keys and signatures are masked.",
    fields: &[
        (
            "message",
            Ty::String,
            "`No error`, or what the iLO remarks (`Host power is already ON.`)",
        ),
        (
            "elements",
            Ty::List(&Ty::Record(&ELEMENT)),
            "what it brought",
        ),
        (
            "text",
            Ty::String,
            "the XML documents as they came; absent if a secret in them could not be masked",
        ),
    ],
};

#[derive(Deserialize)]
struct Request {
    node: String,
    method: String,
    path: String,
    #[serde(default)]
    body: Option<Value>,
    timeout: Seconds,
}

#[derive(Deserialize)]
struct Script {
    node: String,
    xml: Text,
    timeout: Seconds,
}

pub(super) fn register(registry: &mut Registry, site: &Arc<Site>) {
    request(registry, site.clone());
    ribcl(registry, site.clone());
}

fn request(registry: &mut Registry, site: Arc<Site>) {
    registry.add(
        spec(
            "request",
            Class::Effect,
            "Sends a Redfish or REST request of your own, for quirks.",
        )
        .required(
            "path",
            Ty::String,
            "begins with /redfish/, or /rest/ on an iLO 4",
        )
        .default(
            "method",
            Ty::Enum(&["GET", "POST", "PATCH", "PUT", "DELETE"]),
            "GET",
            "HTTP method",
        )
        .optional("body", Ty::Any, "sent as JSON")
        .default("timeout", Ty::Duration, "60s", "how long the iLO may take")
        .returns(
            Ty::Any,
            "the answer's JSON; credentials and signatures are masked",
        )
        .error(Kind::Unsupported, "the iLO has RIBCL only")
        .example("ilo.request(node, { path = \"/redfish/v1/Systems/1/\" }).SKU   --> P28948-B21")
        .run(move |call| {
            let site = site.clone();
            async move {
                let args: Request = call.decode()?;
                let path = &args.path;
                if !["/redfish/", "/rest/"]
                    .iter()
                    .any(|root| path.starts_with(root))
                {
                    let message = format!("{path:?} is no Redfish or REST path");
                    return Err(Error::new(Kind::Invalid, message).hint("/redfish/v1/Systems/1/"));
                }
                let ilo = site.ilo(&call, &args.node).await?;
                let timeout = args.timeout.duration();
                let answer = ilo
                    .request(&args.method, path, args.body.as_ref(), timeout)
                    .await?;
                Ok(answer.into())
            }
        }),
    );
}

fn ribcl(registry: &mut Registry, site: Arc<Site>) {
    registry.add(
        spec(
            "ribcl",
            Class::Effect,
            "Runs RIBCL commands of your own on an iLO 3 to 5, for quirks.",
        )
        .required(
            "xml",
            Ty::Text,
            "one block with its commands; the login around it is added. A block that changes \
             something needs MODE=\"write\", and is not sent again when its answer is lost",
        )
        .default("timeout", Ty::Duration, "60s", "how long the iLO may take")
        .returns(Ty::Record(&ANSWER), "what the iLO answered")
        .error(Kind::Invalid, "no block, or more than one")
        .error(
            Kind::Unsupported,
            "the iLO has no RIBCL (iLO 6, 7), has it switched off, or not this command",
        )
        .error(Kind::Refused, "the command failed: the iLO's code and text")
        .example(
            "local xml = '<SERVER_INFO MODE=\"read\"><GET_HOST_POWER_STATUS/></SERVER_INFO>'\n\
             ilo.ribcl(node, { xml = xml }).elements[1].attributes.HOST_POWER   --> ON",
        )
        .run(move |call| {
            let site = site.clone();
            async move {
                let args: Script = call.decode()?;
                let xml = args.xml.read(&call).await?;
                let ilo = site.ilo(&call, &args.node).await?;
                Ok(ilo.ribcl(&xml, args.timeout.duration()).await?.into())
            }
        }),
    );
}
