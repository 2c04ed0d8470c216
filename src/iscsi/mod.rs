//! iSCSI (RFC 7143): initiator and target over one sans-IO core.
//!
//! ```no_run
//! # async fn example() -> Result<(), flowrun::iscsi::Error> {
//! use flowrun::iscsi::{LoginOptions, Session};
//!
//! let options = LoginOptions::new("10.0.0.7:3260", "iqn.2026-01.test:disk", "iqn.2026-01.test:me");
//! let disk = Session::login(options).await?;
//! disk.write(0, bytes::Bytes::from(vec![0; 4096])).await?;
//! disk.flush().await?;
//! disk.logout().await?;
//! # Ok(())
//! # }
//! ```
//!
//! | RFC 7143 | here |
//! |---|---|
//! | login, CHAP one-way and mutual (MD5, SHA-1, SHA-256) | both ends |
//! | header and data digests CRC32C | both ends |
//! | immediate, unsolicited and solicited data | both ends |
//! | SendTargets | both ends |
//! | task management, session reinstatement | target |
//! | error recovery level 0 | a broken connection fails its commands; nobody reconnects |
//! | several connections in a session, levels 1 and 2, redirection | no |

mod error;
mod initiator;
mod io;
pub mod proto;
pub mod scsi;
pub mod target;

pub use error::{Error, Failure, Result};
pub use initiator::{LoginOptions, LunInfo, Session, discover};
pub use proto::chap::Chap;
pub use proto::negotiate::DigestPolicy as Digests;
pub use proto::session::DiscoveredTarget;
