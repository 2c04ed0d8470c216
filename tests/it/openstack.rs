//! The OpenStack clients against the real services.

#[cfg(test)]
mod boot_media;
#[cfg(test)]
mod cloud;
#[cfg(test)]
mod deploy;
#[cfg(test)]
mod glance;
#[cfg(test)]
mod keystone;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod refusals;
#[cfg(test)]
pub(crate) mod services;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod transfers;
#[cfg(test)]
mod web_images;
