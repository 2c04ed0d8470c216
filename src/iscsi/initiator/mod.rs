//! The initiator: a session with one logical unit.

mod discovery;
mod driver;
mod fence;
mod line;
mod login;
mod open;
mod pieces;
mod probe;
mod recovery;
mod session;

pub use discovery::discover;
pub use login::LoginOptions;
pub use probe::LunInfo;
pub use session::Session;
