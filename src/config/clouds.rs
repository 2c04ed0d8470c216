//! `clouds.yaml`, the file in which OpenStack's own clients keep clouds, and `secure.yaml` beside
//! it, which holds what nobody else may read.
//!
//! Source: openstacksdk, "Configuring OpenStack SDK Applications".

use super::{KeystoneSection, SecretSource};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use crate::suggest::near;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    clouds: BTreeMap<String, Cloud>,
}

/// A cloud; what else the file says of it is for other programs.
#[derive(Debug, Default, Deserialize)]
struct Cloud {
    #[serde(default)]
    auth: Auth,
    region_name: Option<String>,
    interface: Option<String>,
    cacert: Option<PathBuf>,
    verify: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
struct Auth {
    auth_url: Option<String>,
    username: Option<String>,
    password: Option<Secret>,
    user_domain_name: Option<String>,
    user_domain_id: Option<String>,
    project_name: Option<String>,
    project_id: Option<String>,
    project_domain_name: Option<String>,
    project_domain_id: Option<String>,
    application_credential_id: Option<String>,
    application_credential_secret: Option<Secret>,
}

/// Reads a cloud from this file, or from where OpenStack's clients look.
pub(super) fn load(file: Option<&Path>, cloud: &str) -> Result<KeystoneSection> {
    let path = match file {
        Some(path) => path.to_owned(),
        None => usual_places()
            .into_iter()
            .find(|path| path.is_file())
            .ok_or_else(|| {
                Error::new(
                    Kind::NotFound,
                    format!("no clouds.yaml for the cloud {cloud}"),
                )
                .hint("clouds_file says where it is")
            })?,
    };
    let mut clouds = read(&path)?.clouds;
    let Some(found) = clouds.remove(cloud) else {
        let names: Vec<&str> = clouds.keys().map(String::as_str).collect();
        let error = Error::new(Kind::NotFound, format!("there is no cloud {cloud}"))
            .target(path.display().to_string());
        return Err(match near(cloud, &names) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error.hint(format!("there are {}", names.join(", "))),
        });
    };
    let secure = path.with_file_name("secure.yaml");
    let secret = if secure.is_file() {
        read(&secure)?.clouds.remove(cloud).unwrap_or_default()
    } else {
        Cloud::default()
    };
    Ok(secret.section().over(found.section()))
}

/// `OS_CLIENT_CONFIG_FILE`, here, the user's, the system's.
fn usual_places() -> Vec<PathBuf> {
    let env = |name| std::env::var_os(name).map(PathBuf::from);
    let home = env("XDG_CONFIG_HOME").or_else(|| Some(env("HOME")?.join(".config")));
    let mut places: Vec<PathBuf> = env("OS_CLIENT_CONFIG_FILE").into_iter().collect();
    places.push("clouds.yaml".into());
    places.extend(home.map(|home| home.join("openstack/clouds.yaml")));
    places.push("/etc/openstack/clouds.yaml".into());
    places
}

fn read(path: &Path) -> Result<File> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "read the clouds", &e))?;
    serde_norway::from_str(&text).map_err(|e| {
        // Its own words may quote a value, and values here are secrets.
        let place = e
            .location()
            .map_or_else(String::new, |at| format!(":{}", at.line()));
        Error::new(Kind::Invalid, "this is no clouds.yaml")
            .target(format!("{}{place}", path.display()))
            .hint("clouds: { name: { auth: { auth_url: …, username: … } } }")
    })
}

impl Cloud {
    fn section(self) -> KeystoneSection {
        let Self { auth, .. } = self;
        KeystoneSection {
            auth_url: auth.auth_url,
            username: auth.username,
            password: auth.password.map(SecretSource::Given),
            user_domain_name: auth.user_domain_name,
            user_domain_id: auth.user_domain_id,
            project_name: auth.project_name,
            project_id: auth.project_id,
            project_domain_name: auth.project_domain_name,
            project_domain_id: auth.project_domain_id,
            application_credential_id: auth.application_credential_id,
            application_credential_secret: auth
                .application_credential_secret
                .map(SecretSource::Given),
            region_name: self.region_name,
            interface: self.interface,
            ca_file: self.cacert,
            insecure: self.verify == Some(false),
            ..KeystoneSection::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOUDS: &str = "
clouds:
  site:
    profile: other
    auth_type: password
    auth:
      auth_url: https://keystone.example:5000
      username: flowrun
      project_name: service
    region_name: RegionOne
    identity_api_version: 3
    cacert: /etc/ca.pem
  other: {}
";

    #[test]
    fn a_cloud_is_read_with_its_secrets_beside() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("clouds.yaml");
        std::fs::write(&file, CLOUDS).unwrap();
        let secure = "clouds: { site: { auth: { password: hunter2 } } }";
        std::fs::write(dir.path().join("secure.yaml"), secure).unwrap();
        let section = KeystoneSection {
            cloud: Some("site".into()),
            clouds_file: Some(file.clone()),
            region_name: Some("RegionTwo".into()),
            ..KeystoneSection::default()
        };
        let section = section.resolved().unwrap();
        assert_eq!(section.username.as_deref(), Some("flowrun"));
        assert_eq!(
            section.password.as_ref().unwrap().read().unwrap().expose(),
            "hunter2"
        );
        assert_eq!(
            section.region_name.as_deref(),
            Some("RegionTwo"),
            "ours goes before"
        );
        assert_eq!(section.ca_file.as_deref(), Some(Path::new("/etc/ca.pem")));
        assert!(!format!("{section:?}").contains("hunter2"));
        let error = load(Some(&file), "sit").unwrap_err();
        assert_eq!(error.advice(), Some("did you mean site?"));
    }

    #[test]
    fn a_broken_file_is_named_without_its_contents() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("clouds.yaml");
        std::fs::write(&file, "clouds:\n  a:\n    auth: hunter2\n").unwrap();
        let error = load(Some(&file), "a").unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.on().contains("clouds.yaml"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
