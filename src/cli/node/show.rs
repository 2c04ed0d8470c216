//! `node show`: what an iLO tells of its server and itself.

use super::{SHORT, held, plain, run, with_ilo, words};
use crate::cli::Exit;
use crate::cli::args::Cli;
use crate::cli::format::short;
use crate::cli::output::{out, put};
use crate::cli::site::Ground;
use crate::error::Result;
use crate::http::Certificate;
use crate::ilo;
use crate::ilo::model::{IloInfo, VmediaDevice};
use crate::journal::{Learned, NodeOwner};
use crate::lua::bind::TrustSource;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Everything that is shown of a node.
struct Shown {
    name: String,
    address: String,
    info: IloInfo,
    certificate: Certificate,
    trust: TrustSource,
    owner: Option<NodeOwner>,
    learned: BTreeMap<String, Learned>,
}

pub(super) async fn show(cli: &Cli, name: &str) -> Result<Exit> {
    let ground = Ground::open(cli, &[name.to_owned()], &[]).await?;
    let journal = ground.engine.journal();
    let trust = ground.site.trust_source(name, journal).await?;
    let info = with_ilo(&ground, name, async |ilo| ilo.info().await).await?;
    let about = &ground.config.node(name)?.driver_info;
    let address = about.ilo_url();
    let shown = Shown {
        certificate: ilo::certificate(&address, about.ilo_legacy_tls, SHORT).await?,
        owner: journal.node_owners().await?.remove(name),
        learned: journal.learned(name).await?,
        name: name.to_owned(),
        address,
        info,
        trust,
    };
    match cli.json {
        true => out!("{}", as_json(&shown)),
        false => put!("{}", as_text(&shown)),
    }
    Ok(Exit::Done)
}

/// What `ilo.info` has, and beside it where this node is and whom it trusts.
fn as_json(shown: &Shown) -> Value {
    let mut all = json!(shown.info);
    if let Value::Object(fields) = &mut all {
        let certificate = &shown.certificate;
        fields.extend([
            ("name".to_owned(), json!(shown.name)),
            ("address".to_owned(), json!(shown.address)),
            ("run".to_owned(), run(shown.owner.as_ref())),
            (
                "tls".to_owned(),
                json!({
                    "version": version(certificate),
                    "fingerprint": certificate.fingerprint,
                    "trust": shown.trust,
                }),
            ),
        ]);
    }
    if let (Value::Object(fields), false) = (&mut all, shown.learned.is_empty()) {
        let learned = shown.learned.iter();
        let learned = learned.map(|(path, fact)| {
            (
                path.clone(),
                json!({ "value": fact.value, "run": fact.run }),
            )
        });
        fields.insert("learned".to_owned(), Value::Object(learned.collect()));
    }
    all
}

fn as_text(shown: &Shown) -> String {
    let Shown {
        info, certificate, ..
    } = shown;
    let mut text = format!("{}\n", shown.name);
    let mut line = |name: &str, what: &str| {
        let what = if what.is_empty() { "-" } else { what };
        text.push_str(&format!("  {name:<11} {}\n", plain(what)));
    };
    let generation = match info.generation {
        0 => "not an iLO".to_owned(),
        number => format!("iLO {number}"),
    };
    line("management", &format!("{generation}, {}", shown.address));
    line("firmware", &info.firmware);
    line("dialect", info.dialect.as_str());
    line("licence", &info.license);
    line("model", &info.model);
    line("serial", &info.serial);
    line(
        "UUID",
        &info.uuid.map(|u| u.to_string()).unwrap_or_default(),
    );
    line("ROM", &info.bios_version);
    line("power", &words(info.power_state));
    line("POST", &words(info.post_state));
    line("boot mode", &words(info.boot_mode));
    line("health", &info.health);
    for drive in &info.media {
        line(drive.device.as_str(), &medium(drive));
    }
    let trust = words(shown.trust);
    line("TLS", &format!("{}, trust: {trust}", version(certificate)));
    line("certificate", &certificate.fingerprint.to_string());
    line("run", &shown.owner.as_ref().map(held).unwrap_or_default());
    for (path, learned) in &shown.learned {
        let value = learned
            .value
            .as_str()
            .map_or_else(|| learned.value.to_string(), str::to_owned);
        text.push_str(&format!(
            "  {path} = {}, of run {}\n",
            plain(&value),
            short(&learned.run)
        ));
    }
    text
}

/// The URL comes masked from the iLO's client.
fn medium(drive: &VmediaDevice) -> String {
    let image = drive.image.as_deref().unwrap_or_default();
    match drive.inserted {
        true => format!("{image} ({})", words(drive.connected_via)),
        false => "empty".to_owned(),
    }
}

/// `TLSv1.3`.
fn version(certificate: &Certificate) -> String {
    certificate.protocol.replace('_', ".")
}
