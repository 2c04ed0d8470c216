//! `[keystone]`, `[swift]` and `[glance]`: the site's OpenStack services.

use super::SecretSource;
use super::clouds;
use crate::error::{Error, Kind, Result};
use serde::Deserialize;
use std::path::PathBuf;

/// `[keystone]`: a cloud of `clouds.yaml`, or the same words here.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeystoneSection {
    /// A name in `clouds.yaml`. What is said beside it goes before what stands there.
    pub cloud: Option<String>,
    /// Where `clouds.yaml` is; absent: where OpenStack's own clients look.
    pub clouds_file: Option<PathBuf>,
    /// `https://host:5000/v3`.
    pub auth_url: Option<String>,
    /// A user's name.
    pub username: Option<String>,
    /// Where the user's password is.
    pub password: Option<SecretSource>,
    /// The domain of the user; absent, with the id: the domain `Default`.
    pub user_domain_name: Option<String>,
    /// The same by id.
    pub user_domain_id: Option<String>,
    /// The project that the user works in.
    pub project_name: Option<String>,
    /// The same by id.
    pub project_id: Option<String>,
    /// The domain of the project; absent, with the id: the user's.
    pub project_domain_name: Option<String>,
    /// The same by id.
    pub project_domain_id: Option<String>,
    /// Instead of a user.
    pub application_credential_id: Option<String>,
    /// Where its secret is.
    pub application_credential_secret: Option<SecretSource>,
    /// The region whose services are used; absent: any, if they agree.
    pub region_name: Option<String>,
    /// `public`, `internal` or `admin`; absent: `public`.
    pub interface: Option<String>,
    /// The authority that signed the services' certificates, PEM; absent: the system's.
    pub ca_file: Option<PathBuf>,
    /// Accepts any certificate. Only by explicit word.
    pub insecure: bool,
    /// The account whose token `keystone.token` gives to ramdisks; absent: the one above. It needs
    /// no role but the one with which it may log in.
    pub ramdisk: Option<Box<Self>>,
}

impl KeystoneSection {
    /// With what `clouds.yaml` says of the cloud, if one is named.
    ///
    /// # Errors
    /// `not_found` without the file or the cloud in it; `invalid` if they cannot be read, or no
    /// login is complete.
    pub fn resolved(&self) -> Result<Self> {
        let mut section = self.over_cloud()?;
        // A least-privileged account is of the same Keystone.
        if let Some(ramdisk) = section.ramdisk.take() {
            let own = ramdisk.over_cloud()?;
            let ramdisk = Self {
                auth_url: own.auth_url.or_else(|| section.auth_url.clone()),
                ca_file: own.ca_file.or_else(|| section.ca_file.clone()),
                insecure: own.insecure || section.insecure,
                ..own
            };
            ramdisk.check("keystone.ramdisk")?;
            section.ramdisk = Some(Box::new(ramdisk));
        }
        section.check("keystone")?;
        Ok(section)
    }

    fn over_cloud(&self) -> Result<Self> {
        match &self.cloud {
            Some(cloud) => Ok(self
                .clone()
                .over(clouds::load(self.clouds_file.as_deref(), cloud)?)),
            None => Ok(self.clone()),
        }
    }

    fn check(&self, section: &str) -> Result<()> {
        let user = self.username.is_some() && self.password.is_some();
        let project = self.project_name.is_some() || self.project_id.is_some();
        let credential = self.application_credential_id.is_some()
            && self.application_credential_secret.is_some();
        if self.auth_url.is_some() && (credential || (user && project)) {
            return Ok(());
        }
        let message = format!("[{section}] is not complete");
        Err(Error::new(Kind::Invalid, message).hint(
            "give auth_url, and either username, password and project_name, or \
             application_credential_id and application_credential_secret; or a cloud",
        ))
    }

    /// Every field that is set here, else as `below` has it.
    pub(super) fn over(self, below: Self) -> Self {
        Self {
            cloud: self.cloud,
            clouds_file: self.clouds_file,
            auth_url: self.auth_url.or(below.auth_url),
            username: self.username.or(below.username),
            password: self.password.or(below.password),
            user_domain_name: self.user_domain_name.or(below.user_domain_name),
            user_domain_id: self.user_domain_id.or(below.user_domain_id),
            project_name: self.project_name.or(below.project_name),
            project_id: self.project_id.or(below.project_id),
            project_domain_name: self.project_domain_name.or(below.project_domain_name),
            project_domain_id: self.project_domain_id.or(below.project_domain_id),
            application_credential_id: self
                .application_credential_id
                .or(below.application_credential_id),
            application_credential_secret: self
                .application_credential_secret
                .or(below.application_credential_secret),
            region_name: self.region_name.or(below.region_name),
            interface: self.interface.or(below.interface),
            ca_file: self.ca_file.or(below.ca_file),
            insecure: self.insecure || below.insecure,
            ramdisk: self.ramdisk,
        }
    }
}

/// `[swift]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SwiftSection {
    /// `https://host/auth/v1.0`; absent, with user and key: Keystone says where it is.
    pub auth_url: Option<String>,
    /// Often `account:user`.
    pub user: Option<String>,
    /// Where the user's key is.
    pub key: Option<SecretSource>,
    /// Signs temporary URLs; absent: the account's own key, or the container's.
    pub temp_url_key: Option<SecretSource>,
    /// Whose key `temp_url_key` is made if it is not yet; absent: the operator sees to it.
    pub set_temp_url_key: Option<TempUrlKeyOwner>,
    /// The authority that signed the server's certificate, PEM; absent: the system's.
    pub ca_file: Option<PathBuf>,
}

/// Whose temporary-URL key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TempUrlKeyOwner {
    /// The account's.
    Account,
    /// The container's.
    Container,
}

/// `[glance]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GlanceSection {
    /// The account in which Glance keeps images in Swift (`AUTH_…`); absent: the project's own.
    pub swift_account: Option<String>,
    /// The container of images that do not say themselves where they are; absent: `glance`.
    pub swift_container: Option<String>,
    /// Signs temporary URLs of images; absent: the account's own key.
    pub swift_temp_url_key: Option<SecretSource>,
    /// How long these are good, in seconds; absent: 1200.
    pub swift_temp_url_duration: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<KeystoneSection> {
        toml::from_str::<KeystoneSection>(text).unwrap().resolved()
    }

    #[test]
    fn a_login_has_to_be_complete() {
        let whole = "auth_url = \"u\"\nusername = \"n\"\npassword = { env = \"P\" }\n";
        assert!(resolve(whole).unwrap_err().message().contains("[keystone]"));
        let whole = format!("{whole}project_name = \"p\"\n");
        assert_eq!(resolve(&whole).unwrap().username.as_deref(), Some("n"));
        let ramdisk = format!("{whole}[ramdisk]\nusername = \"r\"\n");
        assert!(
            resolve(&ramdisk)
                .unwrap_err()
                .message()
                .contains("[keystone.ramdisk]")
        );
        let ramdisk = format!("{ramdisk}password = {{ env = \"P\" }}\nproject_id = \"x\"\n");
        let ramdisk = resolve(&ramdisk).unwrap().ramdisk.unwrap();
        assert_eq!(
            ramdisk.auth_url.as_deref(),
            Some("u"),
            "of the same Keystone"
        );
        assert_eq!(ramdisk.project_name, None, "in its own project");
    }
}
