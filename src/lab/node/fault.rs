//! What a simulated server can be told to do wrong.

/// A misbehaviour, switched on by its name (`node.power=lost-in-write`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeFault {
    /// The deploy ramdisk comes up and never calls.
    RamdiskSilent,
    /// The deploy ramdisk cannot export the disk, and reports that.
    RamdiskFails,
    /// The power fails once, in the middle of a write.
    PowerLost,
    /// Writes fail after the first few mebibytes.
    DiskFails,
    /// One bit of what is written is stored wrong, once.
    DiskFlipsBit,
}

impl NodeFault {
    /// Every fault with its name.
    pub const NAMES: [(Self, &'static str); 5] = [
        (Self::RamdiskSilent, "node.ramdisk=silent"),
        (Self::RamdiskFails, "node.ramdisk=fails"),
        (Self::PowerLost, "node.power=lost-in-write"),
        (Self::DiskFails, "node.disk=fails-in-write"),
        (Self::DiskFlipsBit, "node.disk=flips-a-bit"),
    ];

    /// The fault of this name, if there is one.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let found = Self::NAMES.iter().find(|(_, known)| *known == name);
        found.map(|(fault, _)| *fault)
    }
}
