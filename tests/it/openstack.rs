//! The OpenStack clients against the real services.

#[cfg(test)]
mod keystone;
pub(crate) mod services;
