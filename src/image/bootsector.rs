//! A boot program that prints one message and halts.
//!
//! Firmware that starts a medium or a disk that cannot boot gets a sentence on the console
//! instead of whatever bytes happen to be there. The same 512 bytes work as El Torito image and
//! as master boot record: the code finds its data from where it runs, so it does not matter
//! whether the firmware jumped to `07C0:0000` or `0000:7C00`, and all of it lies before the disk
//! signature and the partition table.

use crate::error::{Error, Kind, Result};

/// Size of the program in bytes, one sector.
pub const SECTOR: usize = 512;

/// First byte of a master boot record that is not boot code (the disk signature).
const CODE_END: usize = 440;

/// The boot signature `55 AA` of a sector.
const SIGNATURE: [u8; 2] = [0x55, 0xaa];

/// Distance from the code's self-locating `pop si` to the message.
const MESSAGE_FROM_POP: u8 = 26;

/// The code in front of the message, 16-bit real mode.
#[rustfmt::skip]
const CODE: [u8; 38] = [
    0xfa,                           // 00  cli               no interrupt on a half-set stack
    0x31, 0xc0,                     // 01  xor ax, ax
    0x8e, 0xd0,                     // 03  mov ss, ax
    0xbc, 0x00, 0x7c,               // 05  mov sp, 0x7c00    stack below the program
    0xfb,                           // 08  sti
    0xe8, 0x00, 0x00,               // 09  call 0x0c         pushes the offset of the next byte
    0x5e,                           // 0c  pop si            si = where this byte runs
    0x0e,                           // 0d  push cs
    0x1f,                           // 0e  pop ds            the message lies in the code segment
    0xfc,                           // 0f  cld
    0x83, 0xc6, MESSAGE_FROM_POP,   // 10  add si, message - 0x0c
    0xac,                           // 13  lodsb             next:
    0x84, 0xc0,                     // 14  test al, al
    0x74, 0x0b,                     // 16  jz 0x23           the message ends with a zero
    0x56,                           // 18  push si           some firmware changes it
    0xb4, 0x0e,                     // 19  mov ah, 0x0e      teletype output
    0xbb, 0x07, 0x00,               // 1b  mov bx, 0x0007    page 0, light grey
    0xcd, 0x10,                     // 1e  int 0x10
    0x5e,                           // 20  pop si
    0xeb, 0xf0,                     // 21  jmp 0x13
    0xf4,                           // 23  hlt               halt: interrupts stay on, so that
    0xeb, 0xfd,                     // 24  jmp 0x23          Ctrl-Alt-Del still works
];

/// Longest message in bytes; a line feed counts twice.
pub const MAX_MESSAGE: usize = CODE_END - CODE.len() - 1;

/// Makes the boot sector that prints `message` and halts.
///
/// Usable as El Torito no-emulation image (padded to 2048 bytes by the caller) and, up to byte
/// 440, as the boot code of a master boot record.
///
/// # Errors
///
/// `invalid` if the message is empty, longer than [`MAX_MESSAGE`] or has anything but printable
/// ASCII and line feeds.
pub fn program(message: &str) -> Result<[u8; SECTOR]> {
    if message.is_empty() {
        return Err(Error::new(Kind::Invalid, "the boot message is empty"));
    }
    if let Some(bad) = message.chars().find(|c| !matches!(c, ' '..='~' | '\n')) {
        return Err(Error::new(
            Kind::Invalid,
            format!("the boot message has {bad:?}, the firmware prints only ASCII"),
        ));
    }
    // The teletype function moves down on a line feed and left only on a carriage return.
    let text = message.replace('\n', "\r\n");
    if text.len() > MAX_MESSAGE {
        return Err(Error::new(
            Kind::Invalid,
            format!(
                "the boot message takes {} bytes, {MAX_MESSAGE} fit before the partition table",
                text.len()
            ),
        ));
    }
    let mut sector = [0; SECTOR];
    let (body, signature) = sector.split_at_mut(SECTOR - SIGNATURE.len());
    for (to, from) in body.iter_mut().zip(CODE.into_iter().chain(text.bytes())) {
        *to = from;
    }
    signature.copy_from_slice(&SIGNATURE);
    Ok(sector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_follows_the_code_and_ends_with_a_zero() {
        let sector = program("no system\nhere").unwrap();
        assert_eq!(sector[..CODE.len()], CODE);
        assert_eq!(sector[CODE.len()..][..16], *b"no system\r\nhere\0");
        assert!(sector[CODE.len() + 15..510].iter().all(|byte| *byte == 0));
        assert_eq!(sector[510..], [0x55, 0xaa]);
    }

    #[test]
    fn the_relative_addresses_point_where_the_comments_say() {
        assert_eq!(0x0c + usize::from(CODE[0x12]), CODE.len());
        assert_eq!(0x18 + usize::from(CODE[0x17]), 0x23);
        assert_eq!(0x23 - (0x100 - usize::from(CODE[0x22])), 0x13);
        assert_eq!(0x26 - (0x100 - usize::from(CODE[0x25])), 0x23);
    }

    #[test]
    fn the_longest_message_stays_out_of_the_partition_table() {
        let sector = program(&"x".repeat(MAX_MESSAGE)).unwrap();
        assert_eq!(sector[CODE_END - 2..CODE_END], *b"x\0");
        assert!(sector[CODE_END..510].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn refuses_what_cannot_be_printed() {
        for message in ["", "caf\u{e9}", "bell\u{7}", &"x".repeat(MAX_MESSAGE + 1)] {
            assert_eq!(program(message).unwrap_err().kind(), Kind::Invalid);
        }
        let lines = "\n".repeat(MAX_MESSAGE / 2 + 1);
        assert_eq!(program(&lines).unwrap_err().kind(), Kind::Invalid);
    }
}
