//! What a simulated server can be told to do wrong.

/// A misbehaviour, switched on by its name (`node.power=lost-in-write`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeFault {
    /// The deploy ramdisk comes up and never calls.
    RamdiskSilent,
    /// The deploy ramdisk cannot export the disk, and reports that.
    RamdiskFails,
    /// The disk's target does not accept the initiator.
    LoginRefused,
    /// Nobody listens on port 10000.
    DoneClosed,
    /// The power fails once, in the middle of a write.
    PowerLost,
    /// Writes fail after the first few mebibytes.
    DiskFails,
    /// One bit of what is written is stored wrong, once.
    DiskFlipsBit,
}

impl NodeFault {
    /// Every fault with its name, and what happens.
    pub const ALL: [(Self, &'static str, &'static str); 7] = [
        (
            Self::RamdiskSilent,
            "node.ramdisk=silent",
            "the deploy ramdisk comes up and never calls",
        ),
        (
            Self::RamdiskFails,
            "node.ramdisk=fails",
            "the deploy ramdisk cannot export the disk, and reports that",
        ),
        (
            Self::LoginRefused,
            "node.iscsi=login-refused",
            "the disk's target knows another CHAP secret and refuses every login",
        ),
        (
            Self::DoneClosed,
            "node.done=closed",
            "nobody listens on port 10000 when the disk is written",
        ),
        (
            Self::PowerLost,
            "node.power=lost-in-write",
            "the power fails once, in the middle of a write",
        ),
        (
            Self::DiskFails,
            "node.disk=fails-in-write",
            "writes fail after the first few mebibytes",
        ),
        (
            Self::DiskFlipsBit,
            "node.disk=flips-a-bit",
            "one bit of what is written is stored wrong, once",
        ),
    ];

    /// The fault of this name, if there is one.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, known, _)| *known == name);
        found.map(|(fault, ..)| *fault)
    }
}
