//! `iscsi`: sessions with a node's disk.

use super::args::{Seconds, Text};
use super::ramdisk::TARGET;
use crate::engine::{Call, Class, Handle, LiveRef, LiveValue, Reply, Run};
use crate::error::{Error, Kind, Result};
use crate::iscsi::{Chap, Digests, LoginOptions, Session, discover};
use crate::lua::spec::{FnSpec, Record, Registry, Ty};
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use std::any::Any;
use std::time::Duration;
use uuid::Uuid;

pub(super) const SESSION: Ty = Ty::Live("session");

const DISK: Record = Record {
    name: "IscsiDisk",
    doc: "What a target tells of its disk.",
    fields: &[
        ("bytes", Ty::Integer, "its size"),
        ("block_bytes", Ty::Integer, "size of a block"),
        ("vendor", Ty::String, "who made it, padded with spaces"),
        ("product", Ty::String, "its model, padded likewise"),
        ("serial", Ty::String, "its serial number, if it tells one"),
        (
            "unmap_zeroes",
            Ty::Boolean,
            "whether unmapped blocks read as zeros",
        ),
        (
            "reserved",
            Ty::Boolean,
            "whether the target keeps other writers off",
        ),
    ],
};

/// An open session as the run holds it.
#[derive(Debug)]
struct Disk(Session);

impl Handle for Disk {
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(close(&self.0))
    }
}

async fn close(session: &Session) {
    if let Err(error) = session.clone().logout().await {
        tracing::debug!(%error, "no logout");
    }
}

/// Orders all owners that a disk may have: a later run, or a later owner of a run, has the larger
/// number. 32 bits of seconds since 1970, 16 bits of fence.
fn owner(run: &Run) -> u64 {
    let id = Uuid::parse_str(&run.id).ok();
    let created = id.and_then(|id| id.get_timestamp());
    let (seconds, _) = created.map_or((0, 0), |created| created.to_unix());
    (seconds & 0xffff_ffff) << 16 | run.fence.min(0xffff)
}

/// The disk behind a reference.
pub(super) async fn disk_of(call: &Call, reference: &LiveRef) -> Result<Session> {
    let not_a_disk = || Error::new(Kind::Invalid, "this is not an iSCSI session");
    let LiveValue::Handle(handle) = call.live(reference).await? else {
        return Err(not_a_disk());
    };
    let disk = (&*handle as &dyn Any)
        .downcast_ref::<Disk>()
        .ok_or_else(not_a_disk)?;
    Ok(disk.0.clone())
}

#[derive(Deserialize)]
struct Login {
    target: Target,
    timeout: Seconds,
    digests: String,
}

/// What `ramdisk.wait` returned, or a table of the same fields.
#[derive(Deserialize)]
struct Target {
    address: String,
    port: u16,
    iqn: String,
    lun: u64,
    initiator: String,
    chap_user: Option<String>,
    chap_secret: Option<Text>,
}

impl Target {
    fn portal(&self) -> String {
        if self.address.contains(':') {
            return format!("[{}]:{}", self.address, self.port);
        }
        format!("{}:{}", self.address, self.port)
    }

    async fn chap(&self, call: &Call) -> Result<Option<Chap>> {
        let (Some(user), Some(secret)) = (&self.chap_user, &self.chap_secret) else {
            return Ok(None);
        };
        Ok(Some(Chap {
            user: user.clone(),
            secret: secret.read(call).await?,
            mutual: None,
        }))
    }
}

pub(super) fn register(registry: &mut Registry) {
    login(registry);
    registry.add(
        FnSpec::new(
            "iscsi",
            "discover",
            Class::Read,
            "Asks a portal for its targets.",
        )
        .subject(
            "target",
            Ty::Record(&TARGET),
            "as `ramdisk.wait` returns it",
        )
        .default(
            "timeout",
            Ty::Duration,
            "30s",
            "how long the portal may take",
        )
        .returns(Ty::List(&Ty::String), "their iqns")
        .error(Kind::Unreachable, "the portal does not answer")
        .example("iscsi.discover(target)[1]   --> iqn.2008-10.org.openstack:1be26c0b-…")
        .run(|call| async move {
            #[derive(Deserialize)]
            struct Args {
                target: Target,
                timeout: Seconds,
            }
            let Args { target, timeout } = call.decode()?;
            let chap = target.chap(&call).await?;
            let found = discover(
                &target.portal(),
                &target.initiator,
                chap,
                timeout.duration(),
            )
            .await?;
            let names: Vec<&str> = found.iter().map(|target| target.name.as_str()).collect();
            Reply::of(&names)
        }),
    );
    blocks(registry);
    ends(registry);
}

fn login(registry: &mut Registry) {
    registry.add(
        FnSpec::new(
            "iscsi",
            "login",
            Class::Live,
            "Opens a session with a disk, and reserves it for the run where the target can.",
        )
        .subject(
            "target",
            Ty::Record(&TARGET),
            "as `ramdisk.wait` returns it",
        )
        .default(
            "timeout",
            Ty::Duration,
            "60s",
            "how long the login may take",
        )
        .default(
            "digests",
            Ty::Enum(&["none", "preferred", "required"]),
            "preferred",
            "CRC32C",
        )
        .returns(SESSION, "the session; it is closed when the run ends")
        .error(
            Kind::Auth,
            "the target refuses the initiator or its CHAP secret",
        )
        .error(Kind::Unreachable, "the portal does not answer")
        .error(Kind::Conflict, "somebody else has reserved the disk")
        .example("local lun = iscsi.login(target)")
        .run(|call| async move {
            let Login {
                target,
                timeout,
                digests,
            } = call.decode()?;
            // The target refuses an owner with an older fence than the newest it has seen.
            let initiator = format!("{}:f{}", target.initiator, call.run.fence);
            let mut options = LoginOptions::new(target.portal(), &target.iqn, initiator);
            options.lun = target.lun;
            options.chap = target.chap(&call).await?;
            options.login_timeout = timeout.duration();
            options.fence = Some(owner(&call.run));
            options.digests = match digests.as_str() {
                "none" => Digests::None,
                "required" => Digests::Required,
                _ => Digests::Preferred,
            };
            let session = Session::login(options).await?;
            let mut reply = Reply::default();
            reply.value = reply.hold(LiveValue::Handle(std::sync::Arc::new(Disk(session))));
            Ok(reply)
        }),
    );
}

#[derive(Deserialize)]
struct Blocks {
    lun: LiveRef,
    lba: u64,
    #[serde(default)]
    blocks: u32,
    #[serde(default)]
    hex: String,
}

/// Most bytes that one raw read or write carries through Lua.
const MAX_RAW_BYTES: u64 = 1 << 20;

fn blocks(registry: &mut Registry) {
    let spec = |name, class, summary| {
        FnSpec::new("iscsi", name, class, summary)
            .subject("lun", SESSION, "as `iscsi.login` returns it")
            .required("lba", Ty::Integer, "first block")
    };
    registry.add(
        spec(
            "read",
            Class::Read,
            "Reads blocks; for looks at labels and tables, not for images.",
        )
        .default("blocks", Ty::Integer, 1, "how many, 1 MiB at most")
        .returns(Ty::String, "the bytes in hex")
        .simulated(|_| Value::from("00".repeat(512)))
        .example("iscsi.read(lun, { lba = 0 }):sub(-4)   --> 55aa")
        .run(|call| async move {
            let args: Blocks = call.decode()?;
            let disk = disk_of(&call, &args.lun).await?;
            let wanted = u64::from(args.blocks) * u64::from(disk.lun_info().block_bytes);
            if wanted > MAX_RAW_BYTES {
                return Err(Error::new(Kind::Limit, "more than 1 MiB in one read"));
            }
            let bytes = disk.read(args.lba, args.blocks).await?;
            Ok(Value::from(hex::encode(bytes)).into()) as Result<Reply>
        }),
    );
    registry.add(
        spec(
            "write",
            Class::Effect,
            "Writes blocks; for labels and tables, not for images.",
        )
        .required("hex", Ty::String, "whole blocks in hex, 1 MiB at most")
        .example("iscsi.write(lun, { lba = 0, hex = (\"00\"):rep(512) })")
        .run(|call| async move {
            let args: Blocks = call.decode()?;
            let bytes = hex::decode(&args.hex)
                .map_err(|e| Error::new(Kind::Invalid, format!("`hex`: {e}")))?;
            let disk = disk_of(&call, &args.lun).await?;
            let block = usize::try_from(disk.lun_info().block_bytes).unwrap_or(512);
            if bytes.is_empty() || bytes.len() % block != 0 {
                let message = format!("`hex` must be whole blocks of {block} bytes");
                return Err(Error::new(Kind::Invalid, message));
            }
            call.run.guard()?;
            disk.write(args.lba, bytes.into()).await?;
            Ok(Reply::default())
        }),
    );
}

#[derive(Deserialize)]
struct Lun1 {
    lun: LiveRef,
}

fn ends(registry: &mut Registry) {
    registry.add(
        FnSpec::new("iscsi", "info", Class::Read, "Tells what the disk is.")
            .subject("lun", SESSION, "as `iscsi.login` returns it")
            .returns(Ty::Record(&DISK), "the disk behind the session")
            .simulated(|_| json!({ "bytes": 480_u64 << 30, "block_bytes": 512 }))
            .example("iscsi.info(lun).bytes   --> 4294967296")
            .run(|call| async move {
                let Lun1 { lun } = call.decode()?;
                let disk = disk_of(&call, &lun).await?;
                let (info, reserved) = (disk.lun_info(), disk.is_reserved());
                Ok(json!({
                    "bytes": info.bytes(),
                    "block_bytes": info.block_bytes,
                    "vendor": info.vendor,
                    "product": info.product,
                    "serial": info.serial,
                    "unmap_zeroes": info.unmap_zeroes,
                    "reserved": reserved,
                })
                .into()) as Result<Reply>
            }),
    );
    registry.add(
        FnSpec::new(
            "iscsi",
            "flush",
            Class::Effect,
            "Waits until all writes are on the medium.",
        )
        .subject("lun", SESSION, "as `iscsi.login` returns it")
        .example("iscsi.flush(lun)")
        .run(|call| async move {
            let Lun1 { lun } = call.decode()?;
            disk_of(&call, &lun).await?.flush().await?;
            Ok(Reply::default())
        }),
    );
    registry.add(
        FnSpec::new(
            "iscsi",
            "logout",
            Class::Effect,
            "Closes a session; a closed one is fine.",
        )
        .subject("lun", SESSION, "as `iscsi.login` returns it")
        .example("iscsi.logout(lun)")
        .run(|call| async move {
            let Lun1 { lun } = call.decode()?;
            let closing = async {
                if let Ok(disk) = disk_of(&call, &lun).await {
                    close(&disk).await;
                }
            };
            drop(tokio::time::timeout(Duration::from_secs(10), closing).await);
            Ok(Reply::default())
        }),
    );
}
