//! The OpenStack clients against the real services.

#[cfg(test)]
mod deploy;
#[cfg(test)]
mod glance;
#[cfg(test)]
mod keystone;
#[cfg(test)]
pub(crate) mod services;
