//! Certificates are renewed every few weeks, and a daemon runs for longer.

use super::listener::door;
use crate::config::ApiSection;
use crate::error::Result;
use crate::http::server::{Door, ServerHandle};
use std::time::Duration;
use tokio::signal::unix::Signal;

/// The files of `[api]` that a listener shows.
#[derive(Debug)]
pub struct Renewal<'a> {
    api: &'a ApiSection,
    server: &'a ServerHandle,
    shown: Option<Door>,
    /// What is wrong with the files and was told.
    told: Option<String>,
}

impl<'a> Renewal<'a> {
    /// Of this listener, which has just read them.
    #[must_use]
    pub fn new(api: &'a ApiSection, server: &'a ServerHandle) -> Self {
        Self {
            api,
            server,
            shown: door(api, server.address()).ok(),
            told: None,
        }
    }

    /// Shows what is in the files whenever that changed: looks so `often`, and at once at each of
    /// these signals.
    /// Files that cannot be used, half-written ones too, are told and leave the ones before in use.
    pub async fn follow(mut self, often: Duration, signal: &mut Signal) {
        loop {
            let asked = tokio::select! {
                _ = signal.recv() => true,
                () = tokio::time::sleep(often) => false,
            };
            if asked {
                self.told = None;
            }
            match self.look() {
                Ok(true) => tracing::info!("certificate and key were read anew"),
                Ok(false) if asked => tracing::info!("certificate and key are as they were"),
                Ok(false) => {}
                Err(error) => {
                    let text = error.to_string();
                    if self.told.as_ref() != Some(&text) {
                        tracing::error!(%error, "the certificate before stays in use");
                    }
                    self.told = Some(text);
                    continue;
                }
            }
            self.told = None;
        }
    }

    /// Whether there was something new.
    fn look(&mut self) -> Result<bool> {
        let found = door(self.api, self.server.address())?;
        if self.shown.as_ref() == Some(&found) {
            return Ok(false);
        }
        self.server.renew(&found)?;
        self.shown = Some(found);
        Ok(true)
    }
}
