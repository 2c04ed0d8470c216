//! flowrun deploys bare-metal HPE ProLiant servers with Lua flows that operators edit while it
//! runs. This page is the architecture; `flowrun help` explains what flows can call.
//!
//! # How a server is deployed
//! A *flow* (`flows/ilo_vmedia_iscsi.lua`) boots the server over its iLO's virtual media: a FAT
//! floppy carries a token and parameters, an ISO boots the deploy ramdisk, and both are served as
//! expiring temporary URLs. The ramdisk exports the disk over iSCSI and calls back; the host
//! writes the image, reads it back, tells the ramdisk to reboot, and sees the disk boot.
//!
//! # Words
//! *flow* a Lua script that returns a flow table · *action* one entry of it · *bundle* the flow
//! and its modules, pinned by content hash · *run* one execution of an action on one node ·
//! *step* a labelled part of a run · *primitive* a Rust function seen from Lua · *call* one
//! primitive call, a row in the journal · *node* a server of the inventory · *artifact* a file
//! that a primitive built, named by its SHA-256 · *image* an OS disk image · *lab* the simulated
//! site. iSCSI, SCSI, Redfish and Swift words mean what their specifications mean.
//!
//! # Layers
//! A lower one never names a higher one; `tests/tidy.rs` checks it.
//!
//! | level | modules | knows |
//! |---|---|---|
//! | 0 | [`error`] [`secret`] [`clock`] [`backoff`] [`config`] [`suggest`] [`buffer`] | std |
//! | 0 | [`keyed_hash`] | AEGIS |
//! | 1 | [`iscsi::proto`] [`image`] [`disk::plan`] | bytes and files; no sockets, no clocks |
//! | 2 | [`http`] [`iscsi`] [`ilo`] [`openstack`] [`objectstore`] [`disk`] [`imagecache`] | peers |
//! | 3 | [`journal`] | SQLite; no protocol |
//! | 4 | [`engine`] | runs, calls, replay, leases; sees Lua through one trait |
//! | 5 | [`lua`] | the only module that names mlua; a thin file a primitive module in `lua::bind` |
//! | 6 | [`catalogue`] | a site's flows, followed while they are edited; no routes, no commands |
//! | 6 | [`api`] [`cli`] | HTTP routes, commands |
//! | beside | [`ramdisk`] (what runs on the node), [`lab`] (the simulated site) | 0 to 2 |
//!
//! # Invariants
//! - **Nothing leaves a Lua VM except through a primitive**, so a run that died is continued by
//!   running its pinned bundle again from the top: calls answer from the journal. Flow authors
//!   keep no rules. What Lua itself would make different from process to process (order of
//!   `pairs`, addresses, random numbers) is absent or replaced.
//! - **A primitive says once what a crash in its middle means** ([`engine::Class`]).
//! - **Secrets, signed URLs and sessions are opaque to Lua and absent from the journal**, which
//!   holds a reference to the call that made them ([`engine::LiveRef`]).
//! - **A disk is written by one owner.** A run has a lease and a fence number; the writer asks for
//!   the lease before each chunk, and reserves the disk: its target refuses an older owner.
//! - **Success is what was seen**: media read back as inserted, the ramdisk's own call, every byte
//!   of the disk compared, the boot.
//! - **Peers' bytes never panic us**, and every wait has a deadline.

pub mod api;
pub mod backoff;
pub mod buffer;
pub mod catalogue;
pub mod cli;
pub mod clock;
pub mod config;
pub mod disk;
pub mod engine;
pub mod error;
pub mod http;
pub mod ilo;
pub mod image;
pub mod imagecache;
pub mod iscsi;
pub mod journal;
pub mod keyed_hash;
pub mod lab;
pub mod lua;
pub mod objectstore;
pub mod openstack;
pub mod ramdisk;
pub mod secret;
pub mod suggest;
