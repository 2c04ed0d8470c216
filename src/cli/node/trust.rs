//! `node trust`: the certificate that an iLO shows, for the operator to compare and to pin.

use super::{SHORT, plain};
use crate::cli::Exit;
use crate::cli::args::{Cli, TrustArgs};
use crate::cli::format::{colours, paint};
use crate::cli::site::Ground;
use crate::error::{Error, Kind, Result};
use crate::http::{Certificate, Fingerprint};
use crate::ilo;
use serde_json::{Value, json};
use std::io::IsTerminal;

pub(super) async fn trust(cli: &Cli, args: &TrustArgs) -> Result<Exit> {
    let name = &args.node;
    let ground = Ground::open(cli, std::slice::from_ref(name), &[]).await?;
    let journal = ground.engine.journal();
    if args.forget {
        let forgotten = journal.forget_pin(name).await?.map(|pin| pin.fingerprint);
        let source = ground.site.trust_source(name, journal).await?;
        match (cli.json, &forgotten) {
            (true, _) => {
                println!(
                    "{}",
                    json!({ "name": name, "forgotten": forgotten, "trust": source })
                );
            }
            (false, Some(fingerprint)) => println!("{name}: forgot {fingerprint}"),
            (false, None) => println!("{name}: there was no stored pin"),
        }
        return Ok(Exit::Done);
    }
    let info = &ground.config.node(name)?.driver_info;
    let shown = ilo::certificate(&info.ilo_url(), info.ilo_legacy_tls, SHORT).await?;
    if !cli.json {
        print!("{}", describe(&shown));
    }
    let configured = info
        .ilo_fingerprint
        .as_deref()
        .map(str::parse)
        .transpose()?;
    let pin = journal.pin(name).await?;
    let stored = pin.map(|pin| pin.fingerprint.parse()).transpose()?;
    let question = Question {
        node: name,
        shown: shown.fingerprint,
        configured,
        stored,
        given: args.fingerprint,
        yes: args.yes,
        terminal: std::io::stdin().is_terminal() && std::io::stderr().is_terminal(),
    };
    let verdict = match question.decide()? {
        Verdict::Ask => ask(&question).await?,
        verdict => verdict,
    };
    if verdict == Verdict::Store {
        journal.set_pin(name, shown.fingerprint.to_string()).await?;
    }
    if cli.json {
        let source = ground.site.trust_source(name, journal).await?;
        let stored = verdict == Verdict::Store;
        println!("{}", as_json(name, &shown, &json!(source), stored));
    } else {
        println!("{name}: {}", verdict.says());
    }
    Ok(Exit::Done)
}

fn as_json(name: &str, shown: &Certificate, trust: &Value, stored: bool) -> Value {
    json!({ "name": name, "certificate": shown, "trust": trust, "stored": stored })
}

/// The names are the server's own words.
fn describe(shown: &Certificate) -> String {
    let Certificate {
        subject,
        issuer,
        not_before,
        not_after,
        ..
    } = shown;
    let (subject, issuer) = (plain(subject), plain(issuer));
    let fingerprint = shown.fingerprint;
    format!(
        "subject      {subject}\nissuer       {issuer}\nvalid        {not_before} to {not_after}\n\
         SHA-256      {fingerprint}\n"
    )
}

/// What is known when a certificate is to be pinned.
struct Question<'a> {
    node: &'a str,
    /// By the iLO, now.
    shown: Fingerprint,
    /// `ilo_fingerprint` of the configuration.
    configured: Option<Fingerprint>,
    /// Pinned before.
    stored: Option<Fingerprint>,
    /// By the operator, who knows it from elsewhere.
    given: Option<Fingerprint>,
    yes: bool,
    terminal: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ask,
    Store,
    AlreadyStored,
    Configured,
}

impl Verdict {
    fn says(self) -> &'static str {
        match self {
            Self::Ask | Self::Store => "pinned: only this certificate is accepted from now on",
            Self::AlreadyStored => "is pinned already",
            Self::Configured => "the configuration pins it (ilo_fingerprint)",
        }
    }
}

impl Question<'_> {
    /// Another certificate than the one known is never pinned by a mere `--yes`.
    fn decide(&self) -> Result<Verdict> {
        let Self { node, shown, .. } = *self;
        if let Some(given) = self.given.filter(|given| *given != shown) {
            let hint = "ask whoever gave the fingerprint; somebody else may answer at this address";
            return Err(differs(node, "the given one", given, shown).hint(hint));
        }
        if let Some(configured) = self.configured {
            return match configured == shown {
                true => Ok(Verdict::Configured),
                false => Err(differs(node, "ilo_fingerprint", configured, shown).hint(
                    "find out why it changed; if that is right, set ilo_fingerprint of the node, \
                     which goes before a stored pin",
                )),
            };
        }
        match self.stored {
            Some(stored) if stored == shown => Ok(Verdict::AlreadyStored),
            _ if self.given.is_some() => Ok(Verdict::Store),
            Some(stored) if !self.terminal || self.yes => {
                Err(differs(node, "the stored pin", stored, shown).hint(format!(
                    "find out why it changed; if that is right: \
                     `flowrun node trust {node} --fingerprint {shown}`"
                )))
            }
            None if self.yes => Ok(Verdict::Store),
            _ if self.terminal => Ok(Verdict::Ask),
            _ => Err(
                Error::new(Kind::Invalid, "nobody is there to confirm the certificate")
                    .target(node)
                    .hint("--fingerprint SHA256, as the iLO's own web page tells it, or --yes"),
            ),
        }
    }
}

fn differs(node: &str, what: &str, known: Fingerprint, shown: Fingerprint) -> Error {
    let message = format!("the iLO's certificate is not {what}: expected {known}, shown {shown}");
    Error::new(Kind::Auth, message)
        .op("node trust")
        .target(node)
        .detail("pinned", known.to_string())
        .detail("shown", shown.to_string())
}

async fn ask(question: &Question<'_>) -> Result<Verdict> {
    let node = question.node;
    if let Some(stored) = question.stored {
        let changed = paint("THE CERTIFICATE CHANGED:", "1;31", colours());
        eprintln!("{changed} pinned is {stored}");
    }
    eprint!("Is this the iLO of {node}? Only this certificate will be accepted [yes/no]: ");
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    let failed = |e: &dyn std::fmt::Display| Error::new(Kind::Io, format!("no answer: {e}"));
    let line = answer.await.map_err(|e| failed(&e))?;
    let line = line.map_err(|e| failed(&e))?;
    match line.trim().to_ascii_lowercase().as_str() {
        "yes" | "y" => Ok(Verdict::Store),
        _ => Err(Error::new(Kind::Cancelled, "nothing is pinned").target(node)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(digit: char) -> Fingerprint {
        digit.to_string().repeat(64).parse().unwrap()
    }

    fn question() -> Question<'static> {
        Question {
            node: "n",
            shown: fingerprint('a'),
            configured: None,
            stored: None,
            given: None,
            yes: false,
            terminal: false,
        }
    }

    #[test]
    fn pins_what_the_operator_vouches_for() {
        let (same, other) = (Some(fingerprint('a')), Some(fingerprint('b')));
        let decide = |change: fn(&mut Question<'_>, Option<Fingerprint>), with| {
            let mut question = question();
            change(&mut question, with);
            question.decide().map_err(|e| e.kind())
        };
        for (what, found, wanted) in [
            ("nobody", decide(|_, _| {}, None), Err(Kind::Invalid)),
            (
                "a terminal",
                decide(|q, _| q.terminal = true, None),
                Ok(Verdict::Ask),
            ),
            (
                "--yes",
                decide(|q, _| q.yes = true, None),
                Ok(Verdict::Store),
            ),
            (
                "its fingerprint",
                decide(|q, f| q.given = f, same),
                Ok(Verdict::Store),
            ),
            (
                "another's",
                decide(|q, f| q.given = f, other),
                Err(Kind::Auth),
            ),
            (
                "known",
                decide(|q, f| q.stored = f, same),
                Ok(Verdict::AlreadyStored),
            ),
            (
                "in the file",
                decide(|q, f| q.configured = f, same),
                Ok(Verdict::Configured),
            ),
            (
                "not in the file",
                decide(|q, f| q.configured = f, other),
                Err(Kind::Auth),
            ),
        ] {
            assert_eq!(found, wanted, "{what}");
        }
    }

    #[test]
    fn a_changed_certificate_needs_more_than_yes() {
        let changed = || Question {
            stored: Some(fingerprint('b')),
            ..question()
        };
        for (yes, terminal) in [(false, false), (true, false), (true, true)] {
            let question = Question {
                yes,
                terminal,
                ..changed()
            };
            let error = question.decide().unwrap_err();
            assert_eq!(error.kind(), Kind::Auth);
            let [old, new] = ['b', 'a'].map(|digit| fingerprint(digit).to_string());
            assert!(error.message().contains(&old) && error.message().contains(&new));
            assert!(error.advice().unwrap().contains("node trust n"));
        }
        let asked = Question {
            terminal: true,
            ..changed()
        };
        assert_eq!(asked.decide().unwrap(), Verdict::Ask);
        let told = Question {
            given: Some(fingerprint('a')),
            ..changed()
        };
        assert_eq!(told.decide().unwrap(), Verdict::Store);
    }
}
