use super::*;
use proptest::prelude::*;

/// If this fails do not change the test.
#[test]
fn reservations_on_the_wire() {
    let (action, allocation) = (1, 0x0102);
    let cdb = Cdb::PersistentReserveIn { action, allocation };
    let bytes = [0x5e, 1, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!((cdb.encode(), Cdb::decode(&bytes)), (bytes, Ok(cdb)));
    let cdb = Cdb::PersistentReserveOut {
        action: 5,
        kind: 5,
        length: 24,
    };
    let bytes = [0x5f, 5, 5, 0, 0, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!((cdb.encode(), Cdb::decode(&bytes)), (bytes, Ok(cdb)));
}

/// If this fails do not change the test.
#[test]
fn on_the_wire() {
    let table: [(Cdb, [u8; 16]); 9] = [
        (
            Cdb::Inquiry {
                page: Some(0xb2),
                allocation: 0x0123,
            },
            [
                0x12, 0x01, 0xb2, 0x01, 0x23, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            ],
        ),
        (
            Cdb::ReadCapacity16 { allocation: 32 },
            [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0],
        ),
        (
            Cdb::ReportLuns {
                select: 0,
                allocation: 0x0102_0304,
            },
            [0xa0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0],
        ),
        (
            Cdb::Read {
                lba: 0x0102_0304_0506_0708,
                blocks: 0x090a_0b0c,
            },
            [0x88, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0],
        ),
        (
            Cdb::Write {
                lba: 0x0102_0304_0506_0708,
                blocks: 0x090a_0b0c,
                force: true,
            },
            [0x8a, 0x08, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0],
        ),
        (
            Cdb::WriteSame {
                lba: 1,
                blocks: 2,
                unmap: true,
                no_data: false,
            },
            [0x93, 0x08, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0],
        ),
        (
            Cdb::Unmap { length: 24 },
            [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0],
        ),
        (
            Cdb::SynchronizeCache { lba: 0, blocks: 0 },
            [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        (
            Cdb::ModeSense {
                ten: false,
                page: 0x3f,
                subpage: 0,
                control: 0,
                allocation: 192,
            },
            [0x1a, 0, 0x3f, 0, 192, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
    ];
    for (cdb, wire) in table {
        assert_eq!(cdb.encode(), wire, "{cdb:?}");
        assert_eq!(Cdb::decode(&wire), Ok(cdb));
    }
}

/// If this fails do not change the test: ramdisks of other versions are out there.
#[test]
fn hashes_on_the_wire() {
    let hash = Cdb::Hash {
        lba: 0x0102_0304_0506_0708,
        bytes: 0x090a_0b0c,
    };
    let wire = [0xca, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0];
    assert_eq!((hash.encode(), Cdb::decode(&wire)), (wire, Ok(hash)));
    let wire = [0xc9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let key = Cdb::HashKey;
    assert_eq!((key.encode(), Cdb::decode(&wire)), (wire, Ok(key)));
}

/// If this fails do not change the test.
#[test]
fn short_writes_on_the_wire() {
    let write = Cdb::Write {
        lba: 0x0102_0304,
        blocks: 0x0506,
        force: false,
    };
    let wire = [0x2a, 0, 1, 2, 3, 4, 0, 5, 6, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(write.encode(), wire);
    assert_eq!(Cdb::decode(&wire), Ok(write));
}

#[test]
fn shorter_forms_mean_the_same() {
    let table: [(&[u8], Cdb); 5] = [
        (
            &[0x08, 0x01, 0x02, 0x03, 0],
            Cdb::Read {
                lba: 0x01_0203,
                blocks: 256,
            },
        ),
        (
            &[0x28, 0, 0, 0, 1, 2, 0, 0, 8],
            Cdb::Read {
                lba: 0x0102,
                blocks: 8,
            },
        ),
        (
            &[0xa8, 0, 0, 0, 1, 2, 0, 0, 0, 8],
            Cdb::Read {
                lba: 0x0102,
                blocks: 8,
            },
        ),
        (
            &[0x2a, 0x08, 0, 0, 1, 2, 0, 0, 8],
            Cdb::Write {
                lba: 0x0102,
                blocks: 8,
                force: true,
            },
        ),
        (
            &[0x41, 0x08, 0, 0, 1, 2, 0, 0, 8],
            Cdb::WriteSame {
                lba: 0x0102,
                blocks: 8,
                unmap: true,
                no_data: false,
            },
        ),
    ];
    for (bytes, meaning) in table {
        let mut cdb = [0; 16];
        cdb[..bytes.len()].copy_from_slice(bytes);
        assert_eq!(Cdb::decode(&cdb), Ok(meaning));
    }
}

#[test]
fn unsupported_things_have_their_sense() {
    let decode = |first: [u8; 3]| {
        let mut cdb = [0; 16];
        cdb[..3].copy_from_slice(&first);
        Cdb::decode(&cdb)
    };
    assert_eq!(decode([0xa4, 0, 0]), Err(Sense::INVALID_OPERATION_CODE)); // MAINTENANCE OUT
    assert_eq!(decode([0x28, 0x20, 0]), Err(Sense::INVALID_FIELD_IN_CDB)); // RDPROTECT
    assert_eq!(decode([0x9e, 0x12, 0]), Err(Sense::INVALID_FIELD_IN_CDB)); // GET LBA STATUS
    assert_eq!(decode([0x12, 0x00, 0x80]), Err(Sense::INVALID_FIELD_IN_CDB)); // no EVPD
}

#[test]
fn unmap_lists() {
    let list = unmap_list(0x0102_0304_0506_0708, 9);
    assert_eq!(list[..8], [0, 22, 0, 16, 0, 0, 0, 0]);
    assert_eq!(unmap_ranges(&list), Ok(vec![(0x0102_0304_0506_0708, 9)]));
    assert_eq!(unmap_ranges(&[]), Ok(vec![]));
    assert!(unmap_ranges(&list[..7]).is_err());
    assert!(unmap_ranges(&list[..20]).is_err());
}

proptest! {
    #[test]
    fn decoding_is_stable(cdb: [u8; 16], list: Vec<u8>) {
        if let Ok(meaning) = Cdb::decode(&cdb) {
            prop_assert_eq!(Cdb::decode(&meaning.encode()), Ok(meaning));
        }
        drop(unmap_ranges(&list));
    }
}
