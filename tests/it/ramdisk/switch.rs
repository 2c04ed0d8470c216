//! A switch between a machine's network cards and a network: what goes to and from the machine has
//! a VLAN's tag (IEEE 802.1Q), the network knows of none.

use std::path::{Path, PathBuf};
use tokio::net::UnixDatagram;

/// Two MAC addresses stand before the tag.
const TAG_AT: usize = 12;

/// One end of a cable: QEMU sends a frame as a datagram.
struct Port {
    socket: UnixDatagram,
    peer: PathBuf,
}

impl Port {
    fn new(folder: &Path, name: &str) -> Self {
        let socket = UnixDatagram::bind(folder.join(format!("{name}.switch"))).unwrap();
        let peer = folder.join(format!("{name}.qemu"));
        Self { socket, peer }
    }

    async fn receive(&self) -> Vec<u8> {
        let mut frame = vec![0; 65_536];
        let length = self.socket.recv(&mut frame).await.unwrap();
        frame.truncate(length);
        frame
    }

    /// A cable that is not connected at its other end loses it.
    async fn send(&self, frame: &[u8]) {
        drop(self.socket.send_to(frame, &self.peer).await);
    }
}

/// QEMU's option for its end of a cable.
pub(super) fn netdev(folder: &Path, name: &str) -> String {
    let end = |end: &str| folder.join(format!("{name}.{end}")).display().to_string();
    format!(
        "dgram,id={name},local.type=unix,local.path={},remote.type=unix,remote.path={}",
        end("qemu"),
        end("switch")
    )
}

/// The switch, with two cables to the machine and one to the network.
pub(super) struct Switch {
    machine: [Port; 2],
    network: Port,
    tag: [u8; 4],
}

impl Switch {
    pub(super) fn new(folder: &Path, machine: [&str; 2], network: &str, vlan: u16) -> Self {
        let [high, low] = vlan.to_be_bytes();
        Self {
            machine: machine.map(|name| Port::new(folder, name)),
            network: Port::new(folder, network),
            tag: [0x81, 0x00, high, low],
        }
    }

    /// Until it is dropped.
    pub(super) async fn run(self) {
        let [first, second] = &self.machine;
        loop {
            tokio::select! {
                frame = first.receive() => self.untag(frame).await,
                frame = second.receive() => self.untag(frame).await,
                mut frame = self.network.receive() => {
                    frame.splice(TAG_AT..TAG_AT, self.tag);
                    first.send(&frame).await;
                    second.send(&frame).await;
                }
            }
        }
    }

    /// Of other VLANs and of none it takes nothing.
    async fn untag(&self, mut frame: Vec<u8>) {
        if frame.get(TAG_AT..TAG_AT + 4) == Some(&self.tag) {
            drop(frame.drain(TAG_AT..TAG_AT + 4));
            self.network.send(&frame).await;
        }
    }
}
