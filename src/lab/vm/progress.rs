//! What a machine prints: kept, and read for the moment in which its firmware hands over.

use std::io;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// Longest line that is looked at as one.
const MAX_LINE_BYTES: usize = 1024;

/// Reads until the end; `take` gets the bytes as they come, `line` each line without its end.
pub(super) async fn follow(
    mut source: pipe::Receiver,
    mut take: impl FnMut(&[u8]),
    mut line: impl FnMut(&str),
) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let mut lines = Lines::default();
    loop {
        let count = source.read(&mut buffer).await?;
        let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else {
            return Ok(());
        };
        take(chunk);
        lines.push(chunk, &mut line);
    }
}

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, chunk: &[u8], line: &mut impl FnMut(&str)) {
        for byte in chunk {
            if *byte == b'\n' || self.0.len() >= MAX_LINE_BYTES {
                let text = String::from_utf8_lossy(&self.0);
                line(text.trim_end());
                self.0.clear();
            }
            if *byte != b'\n' {
                self.0.push(*byte);
            }
        }
    }
}

/// Follows a firmware up to the moment in which it starts what it found.
#[derive(Debug, Default)]
pub(super) struct Firmware {
    tried: String,
}

impl Firmware {
    /// Looks at a line of SeaBIOS's debug port or of OVMF's console, and says what is started.
    ///
    /// SeaBIOS (`boot.c`) names the device and then, if there is a loader, the address of it;
    /// EDK II (`BdsBoot.c`) has one line. Its shell is where it ends when nothing boots.
    pub(super) fn see(&mut self, line: &str) -> Option<String> {
        const EFI: &str = "BdsDxe: starting ";
        const BIOS: &str = "Booting from ";
        if let Some((_, option)) = line.split_once(EFI) {
            return (!option.contains("EFI Internal Shell")).then(|| option.to_owned());
        }
        let (_, rest) = line.split_once(BIOS)?;
        let is_address = rest.len() >= 9
            && rest.chars().take(9).enumerate().all(|(at, c)| match at {
                4 => c == ':',
                _ => c.is_ascii_hexdigit(),
            });
        if is_address {
            return Some(std::mem::take(&mut self.tried));
        }
        self.tried = rest.trim_end_matches('.').to_owned();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_in_any_pieces() {
        let mut seen = Vec::new();
        let mut lines = Lines::default();
        let mut take = |line: &str| seen.push(line.to_owned());
        for chunk in ["a", "b\r\nc\n\n", "d"] {
            lines.push(chunk.as_bytes(), &mut take);
        }
        lines.push(&[b'x'; 3000], &mut take);
        assert_eq!(seen[..3], ["ab", "c", ""]);
        assert!(seen[3..].iter().all(|line| line.len() == MAX_LINE_BYTES));
    }

    #[test]
    fn a_firmware_hands_over_when_it_starts_something() {
        let started = |lines: &[&str]| {
            let mut firmware = Firmware::default();
            lines.iter().find_map(|line| firmware.see(line))
        };
        let bios = [
            "SeaBIOS (version 1.16.2)",
            "Booting from DVD/CD...",
            "Booting from 0000:7c00",
        ];
        assert_eq!(started(&bios).as_deref(), Some("DVD/CD"));
        let none = [
            "Booting from Hard Disk...",
            "Boot failed: not a bootable disk",
            "No bootable device.",
        ];
        assert_eq!(started(&none), None);
        let fallen = [
            "Booting from Hard Disk...",
            "Boot failed: not a bootable disk",
            "Booting from DVD/CD...",
            "Booting from 0000:7c00",
        ];
        assert_eq!(started(&fallen).as_deref(), Some("DVD/CD"));
        let efi = [
            "BdsDxe: loading Boot0001 \"UEFI QEMU DVD-ROM\" from PciRoot(0x0)",
            "\u{1b}[0mBdsDxe: starting Boot0001 \"UEFI QEMU DVD-ROM\" from PciRoot(0x0)",
        ];
        assert_eq!(
            started(&efi).as_deref(),
            Some("Boot0001 \"UEFI QEMU DVD-ROM\" from PciRoot(0x0)")
        );
        assert_eq!(
            started(&["BdsDxe: starting Boot0002 \"EFI Internal Shell\" from Fv()"]),
            None
        );
    }
}
