//! Clients of OpenStack services.
