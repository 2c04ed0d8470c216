//! The boot order of UEFI firmware (`HpeServerBootSettings`): names of boot sources, the first
//! tried first. Numbers in the names vary from server to server, and their first parts tell little
//! (`OCP.Slot.18.1` is a disk, `OCP.Slot.10.1.IPv4` a network): the UEFI device path decides.

use super::documents::{text, texts};
use crate::ilo::model::BootDevice;
use serde_json::Value;

/// What a boot order tries first, if it has a name here.
pub(super) fn first(order: &Value, sources: &Value) -> Option<BootDevice> {
    let first = texts(order, "/PersistentBootConfigOrder").next()?;
    listed(sources)
        .find(|source| name(source) == first)
        .and_then(device)
}

/// The order with everything that is `device` in front, each as it was among its like; `None` if
/// no source is.
pub(super) fn with_first(
    order: &Value,
    sources: &Value,
    wanted: BootDevice,
) -> Option<Vec<String>> {
    let is_wanted = |name: &str| {
        listed(sources).any(|source| self::name(source) == name && device(source) == Some(wanted))
    };
    let old: Vec<&str> = texts(order, "/PersistentBootConfigOrder").collect();
    let (mut new, rest): (Vec<&str>, Vec<&str>) = old.iter().partition(|name| is_wanted(name));
    // What the order left out.
    let known = listed(sources).map(name);
    new.extend(known.filter(|name| is_wanted(name) && !old.contains(name)));
    if new.is_empty() {
        return None;
    }
    new.extend(rest);
    Some(new.into_iter().map(str::to_owned).collect())
}

/// The names of what can be booted.
pub(super) fn names(sources: &Value) -> Vec<&str> {
    listed(sources).map(name).collect()
}

fn listed(sources: &Value) -> impl Iterator<Item = &Value> {
    let listed = sources.pointer("/BootSources").and_then(Value::as_array);
    listed.into_iter().flatten()
}

fn name(source: &Value) -> &str {
    text(source, "/StructuredBootString")
}

/// What a boot source is. Nodes of device paths are named by the UEFI specification (2.10, 10.6).
fn device(source: &Value) -> Option<BootDevice> {
    let name = name(source);
    // HPE's own examples break lines in it.
    let path: String = text(source, "/UEFIDevicePath").split_whitespace().collect();
    let has = |node: &str| path.contains(node);
    let begins = |start: &str| name.starts_with(start);
    match () {
        () if has("iSCSI(") || begins("HD.SD.") => None,
        () if has("Uri(") => Some(BootDevice::UefiHttp),
        () if has("MAC(") => Some(BootDevice::Pxe),
        () if begins("CD.") || has("CDROM(") => Some(BootDevice::Cdrom),
        () if begins("FD.") || has("UsbClass(") => Some(BootDevice::Usb),
        () if begins("Shell.") => Some(BootDevice::UefiShell),
        () if begins("HD.") || ["HD(", "Scsi(", "Sata(", "NVMe("].into_iter().any(has) => {
            Some(BootDevice::Disk)
        }
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Of four servers: Gen9 (iLO 4), Gen10 (iLO 5 1.30), Gen10 Plus (3.11), Gen11 (iLO 6 1.66).
    fn captured() -> [Value; 4] {
        [
            include_str!("../../lab/ilo/data/ilo4/boot.json"),
            include_str!("../../lab/ilo/data/ilo5_early/boot.json"),
            include_str!("../../lab/ilo/data/ilo5/boot.json"),
            include_str!("../../lab/ilo/data/ilo6/boot.json"),
        ]
        .map(|text| serde_json::from_str(text).unwrap())
    }

    #[test]
    fn sources_of_real_servers_are_known() {
        let of = |boot: &Value, wanted| -> Vec<String> {
            let found = listed(boot).filter(|source| device(source) == wanted);
            found.map(|source| name(source).to_owned()).collect()
        };
        let [gen9, gen10, gen10_plus, gen11] = captured();
        use BootDevice as D;
        assert_eq!(of(&gen9, Some(D::Disk)), ["HD.Slot.1.1", "HD.Slot.1.2"]);
        assert_eq!(of(&gen9, Some(D::Cdrom)), ["CD.Virtual.2.1"]);
        assert_eq!(of(&gen9, None), ["NIC.LOM.1.1.iSCSI"]);
        assert_eq!(
            of(&gen10, Some(D::Disk)),
            [
                "HD.EmbSWRAID.3.1",
                "HD.EmbSWRAID.1.2",
                "Unknown.Unknown.200.1"
            ]
        );
        assert_eq!(
            of(&gen10, Some(D::Usb)),
            ["Generic.USB.1.1", "FD.Virtual.4.1"]
        );
        assert_eq!(of(&gen10, Some(D::UefiShell)), ["Shell.Emb.1.2"]);
        assert_eq!(of(&gen10, None), ["HD.SD.1.2", "NIC.LOM.1.1.iSCSI"]);
        assert_eq!(
            of(&gen10_plus, Some(D::Disk)),
            ["HD.Slot.12.3", "HD.Slot.12.2"]
        );
        assert_eq!(of(&gen10_plus, Some(D::Pxe)).len(), 4);
        assert_eq!(of(&gen11, Some(D::Disk)), ["OCP.Slot.18.1"]);
        assert_eq!(of(&gen11, Some(D::UefiHttp)).len(), 2);
    }

    #[test]
    fn a_device_moves_to_the_front_with_its_like() {
        let [gen9, _, _, gen11] = captured();
        assert_eq!(first(&gen9, &gen9), Some(BootDevice::Disk));
        assert_eq!(
            with_first(&gen9, &gen9, BootDevice::Pxe).unwrap(),
            [
                "NIC.LOM.1.1.IPv4",
                "NIC.LOM.1.1.IPv6",
                "HD.Slot.1.1",
                "HD.Slot.1.2",
                "NIC.LOM.1.1.iSCSI",
                "Generic.USB.1.1",
                "CD.Virtual.2.1",
            ]
        );
        assert_eq!(with_first(&gen11, &gen11, BootDevice::Cdrom), None);
        // A source that the order does not hold is put into it.
        let order = json!({"PersistentBootConfigOrder": ["Generic.USB.1.1"]});
        let new = with_first(&order, &gen11, BootDevice::Disk).unwrap();
        assert_eq!(new, ["OCP.Slot.18.1", "Generic.USB.1.1"]);
        assert_eq!(first(&json!({}), &gen11), None);
    }
}
