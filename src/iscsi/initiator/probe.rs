//! What a logical unit says about itself.

use super::line::{Line, is_illegal};
use crate::iscsi::error::Failure;
use crate::iscsi::proto::negotiate::Params;
use crate::iscsi::proto::pdu::Lun;
use crate::iscsi::proto::session::Transfer;
use crate::iscsi::scsi::{
    BlockLimits, Capacity, Cdb, Designator, Inquiry, ModeHeader, Provisioning, Sense, SenseKey,
    decode_lun_list, page, vpd_payload,
};
use bytes::Bytes;
use std::time::Duration;

/// A disk as its target describes it.
#[derive(Debug, Clone)]
pub struct LunInfo {
    /// Its number.
    pub lun: u64,
    /// How many logical blocks.
    pub blocks: u64,
    /// Length of a logical block in bytes.
    pub block_bytes: u32,
    /// Length of a physical block in bytes.
    pub physical_block_bytes: u64,
    /// Who made it.
    pub vendor: String,
    /// What it is.
    pub product: String,
    /// Which version.
    pub revision: String,
    /// Unit serial number; empty if it has none.
    pub serial: String,
    /// Its worldwide name, as `naa.…`, `eui.…` or `t10.…`; empty if it has none.
    pub device_id: String,
    /// Whether it refuses writes.
    pub write_protected: bool,
    /// Whether blocks can be given back with [`super::Session::unmap`].
    pub can_unmap: bool,
    /// Whether zeros can be written by unmapping, which costs next to nothing.
    pub unmap_zeroes: bool,
    /// Limits on single commands; zero means not told.
    pub limits: BlockLimits,
    /// What the login negotiated.
    pub params: Params,
}

impl LunInfo {
    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.blocks * u64::from(self.block_bytes)
    }
}

/// Between two looks at a unit that is becoming ready.
const NOT_READY_PAUSE: Duration = Duration::from_millis(200);

/// Gets to know the unit, but for [`is_write_protected`]. The caller bounds the time.
pub(super) async fn probe(line: &mut Line, lun: u64, params: Params) -> Result<LunInfo, Failure> {
    let inquiry = inquiry(line, lun).await?;
    wait_until_ready(line).await?;
    let capacity = capacity(line, lun).await?;
    let pages = vpd(line, page::SUPPORTED).await?.unwrap_or_default();
    let listed = |code: u8| pages.contains(&code);
    let mut serial = String::new();
    if listed(page::SERIAL) {
        let text = vpd(line, page::SERIAL).await?.unwrap_or_default();
        String::from_utf8_lossy(&text)
            .trim_matches(['\0', ' '])
            .clone_into(&mut serial);
    }
    let mut device_id = String::new();
    if listed(page::IDENTIFICATION)
        && let Some(payload) = vpd(line, page::IDENTIFICATION).await?
    {
        device_id = Designator::worldwide_name(&payload).unwrap_or_default();
    }
    let mut limits = BlockLimits::default();
    if listed(page::BLOCK_LIMITS)
        && let Some(payload) = vpd(line, page::BLOCK_LIMITS).await?
    {
        limits = BlockLimits::decode(&payload);
    }
    let mut provisioning = Provisioning::default();
    if listed(page::PROVISIONING)
        && let Some(payload) = vpd(line, page::PROVISIONING).await?
    {
        provisioning = Provisioning::decode(&payload);
    }
    Ok(LunInfo {
        lun,
        blocks: capacity.blocks,
        block_bytes: capacity.block_bytes,
        physical_block_bytes: u64::from(capacity.block_bytes) << capacity.physical_exponent,
        vendor: inquiry.vendor,
        product: inquiry.product,
        revision: inquiry.revision,
        serial,
        device_id,
        write_protected: false,
        can_unmap: capacity.thin && provisioning.unmap,
        // Only WRITE SAME promises zeros. UNMAP is a hint, which a unit may follow in part, even
        // where what it does unmap reads back zero (SBC-4 section 4.7.3).
        unmap_zeroes: capacity.thin && capacity.reads_zero && provisioning.write_same_16,
        limits,
        params,
    })
}

fn unusable(lun: u64, why: &'static str) -> Failure {
    let luns = Vec::new();
    Failure::Unusable { lun, why, luns }
}

/// The numbers of the target's units; empty if it does not tell.
pub(super) async fn luns(line: &mut Line) -> Vec<u64> {
    let (select, allocation) = (0, 4096);
    let cdb = Cdb::ReportLuns { select, allocation };
    let data = line.run("REPORT LUNS", cdb, Transfer::In(allocation)).await;
    let luns = data.map(|data| decode_lun_list(&data)).unwrap_or_default();
    luns.into_iter().filter_map(Lun::number).collect()
}

async fn inquiry(line: &mut Line, lun: u64) -> Result<Inquiry, Failure> {
    let cdb = Cdb::Inquiry {
        page: None,
        allocation: 255,
    };
    let data = line.run("INQUIRY", cdb, Transfer::In(255)).await?;
    let inquiry =
        Inquiry::decode(&data).ok_or_else(|| unusable(lun, "does not identify itself"))?;
    match (inquiry.qualifier, inquiry.device_type) {
        (0, 0) => Ok(inquiry),
        (0, 0x0c) => Err(unusable(lun, "is the target's controller, not a disk")),
        (0, _) => Err(unusable(lun, "is not a disk")),
        _ => Err(unusable(lun, "does not exist")),
    }
}

/// Takes unit attentions off the unit, and waits while it is becoming ready.
async fn wait_until_ready(line: &mut Line) -> Result<(), Failure> {
    // A unit has one condition of each kind at most; the bound is for one that never ends.
    for _ in 0..1000 {
        match line
            .run_once("TEST UNIT READY", Cdb::TestUnitReady, Transfer::None)
            .await
        {
            Ok(_) => return Ok(()),
            Err(Failure::Scsi { sense, .. }) if sense.key == SenseKey::UNIT_ATTENTION => {
                line.news.push(sense);
            }
            Err(Failure::Scsi { sense, .. }) if sense.is_becoming_ready() => {
                tokio::time::sleep(NOT_READY_PAUSE).await;
            }
            Err(failure) => return Err(failure),
        }
    }
    let (command, sense) = ("TEST UNIT READY", Sense::POWER_ON_OR_RESET);
    Err(Failure::Scsi { command, sense })
}

async fn capacity(line: &mut Line, lun: u64) -> Result<Capacity, Failure> {
    let cdb = Cdb::ReadCapacity16 { allocation: 32 };
    let capacity = match line.run("READ CAPACITY(16)", cdb, Transfer::In(32)).await {
        Ok(data) => Capacity::decode(&data),
        Err(failure) if is_illegal(&failure) => {
            let cdb = Cdb::ReadCapacity10;
            let data = line.run("READ CAPACITY(10)", cdb, Transfer::In(8)).await?;
            Capacity::decode_10(&data)
        }
        Err(failure) => return Err(failure),
    };
    capacity.ok_or_else(|| unusable(lun, "has no capacity that makes sense"))
}

/// The payload of a VPD page; `None` if the unit does not have it after all.
async fn vpd(line: &mut Line, code: u8) -> Result<Option<Bytes>, Failure> {
    let cdb = Cdb::Inquiry {
        page: Some(code),
        allocation: 255,
    };
    match line.run("INQUIRY", cdb, Transfer::In(255)).await {
        Ok(data) => Ok(vpd_payload(code, &data).map(Bytes::copy_from_slice)),
        Err(failure) if is_illegal(&failure) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Whether the unit refuses writes. tgt tells nobody whom a reservation keeps from writing.
pub(super) async fn is_write_protected(line: &mut Line) -> Result<bool, Failure> {
    let cdb = |ten| Cdb::ModeSense {
        ten,
        page: 0x3f,
        subpage: 0,
        control: 0,
        allocation: 192,
    };
    for ten in [false, true] {
        match line.run("MODE SENSE", cdb(ten), Transfer::In(192)).await {
            Ok(data) => {
                let header = ModeHeader::decode(ten, &data).unwrap_or_default();
                return Ok(header.write_protected);
            }
            Err(failure) if is_illegal(&failure) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(false)
}
