//! The header of a swap partition.

use super::MIB;
use uuid::Uuid;

const PAGE_BYTES: usize = 4096;
/// Bytes at the start that mkswap wipes, boot code excepted.
const HEADER_BYTES: usize = PAGE_BYTES;

/// Builds the first page of a swap partition of `bytes` bytes, as `mkswap -L swap1` does.
///
/// Source: `union swap_header` of the kernel's include/linux/swap.h: version, last page and number
/// of bad pages at 1024, UUID, label of 16 bytes; the magic ends the page. Pages are 4 KiB, which
/// is what all x86 kernels use.
#[must_use]
pub fn swap_header(bytes: u64, uuid: Uuid) -> Vec<u8> {
    let page = u64::try_from(PAGE_BYTES).unwrap_or(MIB);
    let last_page = u32::try_from(bytes / page)
        .unwrap_or(u32::MAX)
        .saturating_sub(1);
    let mut header = vec![0; 1024];
    header.extend(1_u32.to_le_bytes());
    header.extend(last_page.to_le_bytes());
    header.extend(0_u32.to_le_bytes());
    header.extend(uuid.as_bytes());
    header.extend(b"swap1");
    header.resize(HEADER_BYTES - 10, 0);
    header.extend(b"SWAPSPACE2");
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_page_with_the_magic_at_its_end() {
        let header = swap_header(512 * MIB, Uuid::from_u128(7));
        assert_eq!(header.len(), 4096);
        assert_eq!(&header[4086..], b"SWAPSPACE2");
        assert_eq!(
            header[1024..1036],
            [1, 0, 0, 0, 0xff, 0xff, 1, 0, 0, 0, 0, 0]
        );
        assert_eq!(&header[1052..1057], b"swap1");
    }
}
