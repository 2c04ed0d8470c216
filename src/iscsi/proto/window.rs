//! Serial numbers and the command window (RFC 7143 section 4.2.2).

/// Whether `a` comes before `b` in 32-bit serial number arithmetic (RFC 1982).
///
/// Numbers exactly 2^31 apart have no order: neither comes before the other.
#[must_use]
pub fn sn_before(a: u32, b: u32) -> bool {
    let distance = b.wrapping_sub(a);
    distance != 0 && distance < 0x8000_0000
}

/// The initiator's view of which commands it may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandWindow {
    /// CmdSN of the next non-immediate command.
    cmd_sn: u32,
    /// The last CmdSN that the target takes now.
    max_cmd_sn: u32,
    /// The next CmdSN that the target expects.
    exp_cmd_sn: u32,
}

impl CommandWindow {
    /// A window as the last Login Response left it.
    #[must_use]
    pub fn new(cmd_sn: u32, exp_cmd_sn: u32, max_cmd_sn: u32) -> Self {
        Self {
            cmd_sn,
            max_cmd_sn,
            exp_cmd_sn,
        }
    }

    /// The number that the next command will carry.
    #[must_use]
    pub fn cmd_sn(&self) -> u32 {
        self.cmd_sn
    }

    /// Whether a non-immediate command may be sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !sn_before(self.max_cmd_sn, self.cmd_sn)
    }

    /// Takes the next number for a non-immediate command.
    pub fn take(&mut self) -> u32 {
        let cmd_sn = self.cmd_sn;
        self.cmd_sn = cmd_sn.wrapping_add(1);
        cmd_sn
    }

    /// Learns from ExpCmdSN and MaxCmdSN of a PDU.
    pub fn update(&mut self, exp_cmd_sn: u32, max_cmd_sn: u32) {
        // RFC 7143 section 4.2.2.1: such a pair is out of date and must be ignored.
        if sn_before(max_cmd_sn, exp_cmd_sn.wrapping_sub(1)) {
            return;
        }
        if sn_before(self.max_cmd_sn, max_cmd_sn) {
            self.max_cmd_sn = max_cmd_sn;
        }
        if sn_before(self.exp_cmd_sn, exp_cmd_sn) {
            self.exp_cmd_sn = exp_cmd_sn;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn orders_across_the_wrap() {
        assert!(sn_before(1, 2));
        assert!(sn_before(0xffff_ffff, 0));
        assert!(sn_before(0xffff_fff0, 0x10));
        assert!(!sn_before(5, 5));
        assert!(!sn_before(0, 0x8000_0000));
        assert!(!sn_before(0x8000_0000, 0));
    }

    #[test]
    fn closes_and_opens() {
        let mut window = CommandWindow::new(0xffff_ffff, 0xffff_ffff, 0);
        assert_eq!(window.take(), 0xffff_ffff);
        assert!(window.is_open());
        assert_eq!(window.take(), 0);
        assert!(!window.is_open());
        window.update(0, 0xffff_fffe); // stale: max before exp - 1
        assert!(!window.is_open());
        window.update(1, 1);
        assert!(window.is_open());
        window.update(0, 0); // older numbers do not take anything back
        assert!(window.is_open());
    }

    proptest! {
        #[test]
        fn order_is_antisymmetric(a: u32, b: u32) {
            prop_assert!(!(sn_before(a, b) && sn_before(b, a)));
            prop_assert_eq!(sn_before(a, b), sn_before(a.wrapping_add(7), b.wrapping_add(7)));
        }
    }
}
