//! The site's OpenStack clients: from the configuration, or for the credentials of one call.

use super::args::Text;
use super::site::{Site, read_text};
use crate::config::{KeystoneSection, SecretSource, SwiftSection, TempUrlKeyOwner};
use crate::engine::Call;
use crate::error::{Error, Kind, Result};
use crate::http::Trust;
use crate::image::checksum::Checksum;
use crate::imagecache::{Fetched, ImageCache, Origin, Sources};
use crate::lua::spec::{FnSpec, Ty};
use crate::openstack::glance::Glance;
use crate::openstack::keystone::{Keystone, KeystoneOptions, Login, Named, Place};
use crate::openstack::swift::{KeyOwner, Swift, SwiftAuth, SwiftOptions};
use crate::secret::Secret;
use serde::Deserialize;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Clients, each made at first use.
#[derive(Debug, Default)]
pub(super) struct Clients {
    keystone: OnceLock<Arc<Keystone>>,
    swift: OnceLock<Arc<Swift>>,
    glance: OnceLock<Arc<Glance>>,
    /// Swift in the account of Glance.
    glance_swift: OnceLock<Arc<Swift>>,
}

/// Credentials of one call instead of the configured ones, as in the specification.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Credentials {
    user: Option<String>,
    tenant: Option<String>,
    key: Option<Text>,
    auth_url: Option<String>,
}

impl Credentials {
    /// Declares them.
    pub(super) fn options(spec: FnSpec) -> FnSpec {
        spec.optional("user", Ty::String, "instead of the configured user")
            .optional("tenant", Ty::String, "the project of that user")
            .optional("key", Ty::Text, "its key or password")
            .optional(
                "auth_url",
                Ty::String,
                "where it logs in: Keystone's, or one that ends in /v1.0",
            )
    }
}

impl Site {
    /// The client of Keystone.
    pub(super) fn keystone(&self) -> Result<&Arc<Keystone>> {
        let made = &self.clients().keystone;
        if let Some(keystone) = made.get() {
            return Ok(keystone);
        }
        let section = self.keystone_section()?.resolved()?;
        let keystone = Arc::new(Keystone::new(keystone_options(&section)?)?);
        Ok(made.get_or_init(|| keystone))
    }

    pub(super) fn keystone_section(&self) -> Result<&KeystoneSection> {
        self.config().keystone.as_ref().ok_or_else(|| {
            Error::new(Kind::Invalid, "no Keystone is configured")
                .hint("add [keystone] with a cloud, or auth_url and a login, to flowrun.toml")
        })
    }

    /// The client of the object store.
    pub(super) fn swift(&self) -> Result<&Arc<Swift>> {
        let made = &self.clients().swift;
        if let Some(swift) = made.get() {
            return Ok(swift);
        }
        let swift = Arc::new(Swift::new(self.swift_options()?)?);
        Ok(made.get_or_init(|| swift))
    }

    /// The client of Glance.
    pub(super) fn glance(&self) -> Result<&Arc<Glance>> {
        let made = &self.clients().glance;
        if let Some(glance) = made.get() {
            return Ok(glance);
        }
        let keystone = self.keystone()?.clone();
        let trust = keystone.options().trust.clone();
        let glance = Arc::new(Glance::new(keystone, &trust)?);
        Ok(made.get_or_init(|| glance))
    }

    /// The client of the object store in which Glance keeps images.
    pub(super) fn glance_swift(&self) -> Result<&Arc<Swift>> {
        let made = &self.clients().glance_swift;
        if let Some(swift) = made.get() {
            return Ok(swift);
        }
        let keystone = self.keystone()?;
        let section = &self.config().glance;
        let key = section.swift_temp_url_key.as_ref();
        let auth = SwiftAuth::Keystone(keystone.clone());
        let swift = Arc::new(Swift::new(SwiftOptions {
            account: section.swift_account.clone(),
            temp_url_key: key.map(SecretSource::read).transpose()?,
            ..SwiftOptions::new(auth, keystone.options().trust.clone())
        })?);
        Ok(made.get_or_init(|| swift))
    }

    /// Brings an image here, by way of the cache unless it is a file.
    pub(super) async fn image(&self, source: &str, checksum: Option<&str>) -> Result<Fetched> {
        let checksum = checksum.map(Checksum::parse).transpose()?;
        let origin = Origin::parse(source)?;
        let config = self.config();
        let sources = Sources {
            glance: match (&origin, &config.keystone) {
                (Origin::Glance(_), Some(_)) => Some(self.glance()?.clone()),
                _ => None,
            },
            swift: match &origin {
                Origin::Swift { .. } => Some(self.swift()?.clone()),
                _ => None,
            },
            trust: trust(config.http.ca_file.as_deref(), false)?,
        };
        ImageCache::of(config)?
            .fetch(&sources, origin, checksum)
            .await
    }

    /// The client of the object store for the credentials of a call, if it has any.
    pub(super) async fn swift_as(&self, call: &Call, by: Credentials) -> Result<Arc<Swift>> {
        if by.user.is_none() && by.key.is_none() && by.tenant.is_none() && by.auth_url.is_none() {
            return self.swift().cloned();
        }
        let (Some(user), Some(key)) = (by.user, by.key) else {
            return Err(Error::new(Kind::Invalid, "give both `user` and `key`"));
        };
        let key = key.read(call).await?;
        let options = self.swift_options()?;
        let auth_url = match (by.auth_url, &options.auth) {
            (Some(auth_url), _) => auth_url,
            (None, SwiftAuth::V1 { auth_url, .. }) => auth_url.clone(),
            (None, SwiftAuth::Keystone(keystone)) => keystone.options().auth_url.clone(),
        };
        let auth = login_as(&options, auth_url, user, by.tenant, key)?;
        Swift::new(SwiftOptions {
            auth,
            account: None,
            ..options
        })
        .map(Arc::new)
    }

    fn swift_options(&self) -> Result<SwiftOptions> {
        let config = self.config();
        let section = match (&config.swift, &config.keystone) {
            (None, None) => {
                return Err(Error::new(Kind::Invalid, "no object store is configured")
                    .hint("add [keystone] or [swift] to flowrun.toml, or use --lab"));
            }
            (section, _) => section.clone().unwrap_or_default(),
        };
        let SwiftSection {
            auth_url,
            user,
            key,
            ca_file,
            ..
        } = &section;
        let (auth, trust) = match (auth_url, user, key) {
            (Some(auth_url), Some(user), Some(key)) => {
                let auth = SwiftAuth::V1 {
                    auth_url: auth_url.clone(),
                    user: user.clone(),
                    key: key.read()?,
                };
                (auth, trust(ca_file.as_deref(), false)?)
            }
            _ => {
                let keystone = self.keystone()?;
                let trust = match ca_file {
                    Some(path) => trust(Some(path), false)?,
                    None => keystone.options().trust.clone(),
                };
                (SwiftAuth::Keystone(keystone.clone()), trust)
            }
        };
        let temp_url_key = section.temp_url_key.as_ref().map(SecretSource::read);
        Ok(SwiftOptions {
            temp_url_key: temp_url_key.transpose()?,
            set_temp_url_key: section.set_temp_url_key.map(|owner| match owner {
                TempUrlKeyOwner::Account => KeyOwner::Account,
                TempUrlKeyOwner::Container => KeyOwner::Container,
            }),
            ..SwiftOptions::new(auth, trust)
        })
    }
}

/// How the user of one call logs in at `auth_url`.
fn login_as(
    options: &SwiftOptions,
    auth_url: String,
    user: String,
    tenant: Option<String>,
    key: Secret,
) -> Result<SwiftAuth> {
    if auth_url.trim_end_matches('/').ends_with("/v1.0") {
        let user = match tenant {
            Some(tenant) => format!("{tenant}:{user}"),
            None => user,
        };
        return Ok(SwiftAuth::V1 {
            auth_url,
            user,
            key,
        });
    }
    let (place, project) = match &options.auth {
        SwiftAuth::Keystone(keystone) => {
            let options = keystone.options();
            let project = match &options.login {
                Login::Password { project, .. } => Some(project.clone()),
                Login::ApplicationCredential { .. } => None,
            };
            (options.place.clone(), project)
        }
        SwiftAuth::V1 { .. } => (Place::default(), None),
    };
    let default = Named::Id("default".to_owned());
    let project = tenant.map(Named::Name).or(project);
    let project = project.ok_or_else(|| Error::new(Kind::Invalid, "give `tenant`, the project"))?;
    let login = Login::Password {
        user,
        user_domain: default.clone(),
        password: key,
        project,
        project_domain: default,
    };
    let options = KeystoneOptions {
        place,
        ..KeystoneOptions::new(auth_url, login, options.trust.clone())
    };
    Ok(SwiftAuth::Keystone(Arc::new(Keystone::new(options)?)))
}

pub(super) fn trust(ca_file: Option<&Path>, insecure: bool) -> Result<Trust> {
    match (ca_file, insecure) {
        (_, true) => Ok(Trust::Insecure),
        (Some(path), false) => read_text(path).map(Trust::Ca),
        (None, false) => Ok(Trust::System),
    }
}

/// The options of a section that is complete.
pub(super) fn keystone_options(section: &KeystoneSection) -> Result<KeystoneOptions> {
    let incomplete = || Error::new(Kind::Invalid, "[keystone] is not complete");
    let named = |id: &Option<String>, name: &Option<String>| {
        let id = id.clone().map(Named::Id);
        id.or_else(|| name.clone().map(Named::Name))
    };
    let login = match (
        &section.application_credential_id,
        &section.application_credential_secret,
    ) {
        (Some(id), Some(secret)) => Login::ApplicationCredential {
            id: id.clone(),
            secret: secret.read()?,
        },
        _ => {
            let user_domain = named(&section.user_domain_id, &section.user_domain_name)
                .unwrap_or_else(|| Named::Id("default".to_owned()));
            let password = section.password.as_ref().ok_or_else(incomplete)?;
            Login::Password {
                user: section.username.clone().ok_or_else(incomplete)?,
                password: password.read()?,
                project: named(&section.project_id, &section.project_name)
                    .ok_or_else(incomplete)?,
                project_domain: named(&section.project_domain_id, &section.project_domain_name)
                    .unwrap_or_else(|| user_domain.clone()),
                user_domain,
            }
        }
    };
    let auth_url = section.auth_url.clone().ok_or_else(incomplete)?;
    let trust = trust(section.ca_file.as_deref(), section.insecure)?;
    Ok(KeystoneOptions {
        place: Place {
            region: section.region_name.clone(),
            interface: section
                .interface
                .clone()
                .unwrap_or_else(|| Place::default().interface),
        },
        ..KeystoneOptions::new(auth_url, login, trust)
    })
}
