//! CRC32C header and data digests (RFC 7143 section 13.1).

/// Which digests a connection carries since its login ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digests {
    /// After the header.
    pub header: bool,
    /// After the data segment and its padding.
    pub data: bool,
}

/// The digest of `parts` one after the other, in wire order.
#[must_use]
pub fn crc32c(parts: &[&[u8]]) -> [u8; 4] {
    // The RFC sends the remainder's bit 31 first of all bits, which is the usual CRC's low byte.
    parts
        .iter()
        .fold(0, |crc, part| ::crc32c::crc32c_append(crc, part))
        .to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 7143 appendix A.4. If this fails do not change the test.
    #[test]
    fn examples_of_the_rfc() {
        assert_eq!(crc32c(&[&[0; 32]]), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(crc32c(&[&[0xff; 32]]), [0x43, 0xab, 0xa8, 0x62]);
        let up: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&[&up]), [0x4e, 0x79, 0xdd, 0x46]);
        let down: Vec<u8> = (0..32).rev().collect();
        assert_eq!(crc32c(&[&down]), [0x5c, 0xdb, 0x3f, 0x11]);
        let read10 = [
            0x01, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
            0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00, 0x14,
            0x00, 0x00, 0x00, 0x18, 0x28, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00,
            0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        ];
        assert_eq!(crc32c(&[&read10]), [0x56, 0x3a, 0x96, 0xd9]);
        assert_eq!(
            crc32c(&[&read10[..7], &read10[7..]]),
            [0x56, 0x3a, 0x96, 0xd9]
        );
    }
}
