//! A machine with what servers have: an NVMe disk in blocks of 4096 bytes, two network cards that
//! are a bond in a VLAN, DHCP, little memory, a USB stick that somebody forgot, and a watchdog,
//! which has the last word.

use super::boot::{INITIATOR, IQN, Machine, PATIENCE, boot_iso, called, host, own_address, shown};
use super::switch::{Switch, netdev};
use crate::image::{noise, show};
use bytes::Bytes;
use flowrun::image::vfat::{VfatSpec, make_vfat};
use flowrun::iscsi::{Chap, LoginOptions, Session};
use flowrun::secret::Secret;
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

const CARDS: [&str; 2] = ["52:54:00:00:00:01", "52:54:00:00:00:02"];
const VLAN: u16 = 42;
/// Smaller ones are not taken without a hint.
const DISK_BYTES: u64 = 5 << 30;
const BLOCK_BYTES: u64 = 4096;
/// The smallest disk that is large enough, if it were one.
const STICK_BYTES: u64 = 9 << 29;

/// The network behind the switch: addresses by DHCP, and a way to this host.
fn network(folder: &Path) -> Machine {
    let address = own_address(2);
    let user =
        format!("user,id=user,hostfwd=tcp:{address}:3260-:3260,hostfwd=tcp:{address}:10000-:10000");
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-nodefaults", "-display", "none", "-machine", "none"]);
    for netdev in [
        user,
        "hubport,id=inside,hubid=0,netdev=user".to_owned(),
        netdev(folder, "network"),
        "hubport,id=outside,hubid=0,netdev=network".to_owned(),
    ] {
        command.args(["-netdev", &netdev]);
    }
    Machine(command.spawn().unwrap())
}

/// A stick in front of the floppy that has parameters, too, and another label; and what it holds.
fn stick(path: &Path) -> Vec<u8> {
    let url = ("ironic_api_url".to_owned(), "https://10.0.2.2:9".to_owned());
    let spec = VfatSpec {
        label: "OTHER".into(),
        parameters: [url].into(),
        ..VfatSpec::default()
    };
    let mut options = fs::File::options();
    let file = options.read(true).write(true).create_new(true);
    let file = file.open(path).unwrap();
    make_vfat(&spec, &file).unwrap();
    let bytes = fs::read(path).unwrap();
    file.set_len(STICK_BYTES).unwrap();
    bytes
}

/// The machine; its console takes what is typed, and its monitor after Control-A C.
fn machine(folder: &Path) -> Machine {
    let fixed = "-no-user-config -nodefaults -display none -machine q35 -m 384 -accel tcg \
         -no-reboot -device ide-cd,drive=cd,bootindex=0 \
         -device nvme,drive=disk,serial=NVME0001,logical_block_size=4096,physical_block_size=4096 \
         -device qemu-xhci,id=usb -device usb-storage,bus=usb.0,drive=stick,removable=on \
         -device usb-storage,bus=usb.0,drive=floppy,removable=on \
         -device i6300esb -serial chardev:console -mon chardev=console";
    let mut command = Command::new("qemu-system-x86_64");
    command.args(fixed.split_whitespace());
    for (id, more) in [
        ("cd", ",readonly=on,media=cdrom"),
        ("stick", ""),
        ("floppy", ",readonly=on"),
        ("disk", ""),
    ] {
        let file = show(&folder.join(id));
        let drive = format!("if=none,format=raw,id={id},file={file}{more}");
        command.args(["-drive", &drive]);
    }
    for (name, mac) in ["card0", "card1"].iter().zip(CARDS) {
        let device = format!("virtio-net-pci,netdev={name},romfile=,mac={mac}");
        command.args(["-netdev", &netdev(folder, name), "-device", &device]);
    }
    let log = show(&folder.join("console"));
    let console = format!("stdio,id=console,mux=on,signal=off,logfile={log}");
    command.args(["-chardev", &console]);
    Machine(
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    )
}

/// Writes and reads the disk.
async fn use_disk(image: &[u8]) {
    let portal = format!("{}:3260", own_address(2));
    let mut options = LoginOptions::new(portal, IQN, INITIATOR);
    options.chap = Some(Chap {
        user: "flowrun".into(),
        secret: Secret::new(super::boot::CHAP_SECRET),
        mutual: None,
    });
    options.command_timeout = PATIENCE;
    let disk = Session::login(options).await.unwrap();
    let info = disk.lun_info();
    assert_eq!(
        (u64::from(info.block_bytes), info.blocks),
        (BLOCK_BYTES, DISK_BYTES / BLOCK_BYTES)
    );
    disk.write(3, Bytes::copy_from_slice(image)).await.unwrap();
    disk.flush().await.unwrap();
    let blocks = u32::try_from(image.len() as u64 / BLOCK_BYTES).unwrap();
    assert!(disk.read(3, blocks).await.unwrap() == image);
    disk.logout().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_s_disk_network_and_watchdog() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let console = || shown(folder.path());
    let parameters = [
        ("bond", CARDS.join(",")),
        ("vlan", VLAN.to_string()),
        ("deploy_address", own_address(2).to_string()),
    ];
    let (_server, mut hearing) = host(folder.path(), &parameters);
    let disk = fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path("disk"))
        .unwrap();
    disk.set_len(DISK_BYTES).unwrap();
    let forgotten = stick(&path("stick"));
    // A kernel that panics stays so: only the watchdog ends it.
    boot_iso(
        folder.path(),
        "no_timer_check sysrq_always_enabled=1 panic=0",
    );

    let switch = Switch::new(folder.path(), ["card0", "card1"], "network", VLAN);
    let _network = network(folder.path());
    let mut machine = machine(folder.path());
    let mut keyboard = machine.0.stdin.take().unwrap();
    let mut log = Vec::new();
    let used = async {
        let body = tokio::time::timeout(PATIENCE, called(&mut hearing, &mut log)).await;
        let body = body.unwrap_or_else(|_| panic!("the ramdisk did not call:\n{}", console()));
        assert_eq!(body["error"], "", "{}", console());
        assert_eq!(body["address"], own_address(2).to_string());
        // The card that the bond uses loses its cable.
        let unplug = b"\x01cset_link card0 off\n\x01c";
        keyboard.write_all(unplug).unwrap();
        let image = noise(12, 4 << 20);
        let written = tokio::time::timeout(PATIENCE, use_disk(&image)).await;
        assert!(written.is_ok(), "not written in time:\n{}", console());
        image
    };
    let image = tokio::select! {
        image = used => image,
        () = switch.run() => unreachable!(),
    };
    let mut written = vec![0; image.len()];
    disk.read_exact_at(&mut written, 3 * BLOCK_BYTES).unwrap();
    assert!(written == image);

    let mut held = vec![0; forgotten.len()];
    let stick = fs::File::open(path("stick")).unwrap();
    stick.read_exact_at(&mut held, 0).unwrap();
    assert!(held == forgotten);

    // Break and C on a serial console: the kernel panics.
    keyboard.write_all(b"\x01bc").unwrap();
    let ended = machine.ended().await;
    let ended = ended.unwrap_or_else(|| panic!("no reset:\n{}", console()));
    assert!(ended.success());
    let console = console();
    for line in [
        "] 9437184 512-byte logical blocks",
        "parameters read from the floppy in sd",
        "from DHCP server 10.0.2.2",
        "network: vlan0 52:54:00:00:00:01",
        "disk: nvme0n1 of 5120 MiB, ",
        "serial NVME0001",
        "watchdog: armed",
        "card0 off",
        "Kernel panic - not syncing: sysrq triggered crash",
    ] {
        assert!(console.contains(line), "no {line:?} in:\n{console}");
    }
    assert!(!console.contains("rebooting"), "{console}");
}
