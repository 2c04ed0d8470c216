//! Who may log in, and which of two owners is the newer one.

/// Lets exactly one initiator in: `base`, or `base:f<N>` with a fence number N.
///
/// The fence orders the owners of a run. A login with a higher number drops the sessions of all
/// lower ones, and a login with a lower number than the highest seen is refused. So an owner that
/// was thought dead and wakes up cannot write any more. Plain `base` has fence 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitiatorRule {
    base: String,
}

impl InitiatorRule {
    /// Lets this initiator in.
    pub fn new(base: impl Into<String>) -> Self {
        Self { base: base.into() }
    }

    /// The name to log in with as the owner with this fence number.
    #[must_use]
    pub fn name_for(&self, fence: u64) -> String {
        format!("{}:f{fence}", self.base)
    }

    /// The fence number of an initiator name; `None` if it may not log in.
    #[must_use]
    pub fn fence(&self, initiator_name: &str) -> Option<u64> {
        let rest = initiator_name.strip_prefix(&self.base)?;
        if rest.is_empty() {
            return Some(0);
        }
        let digits = rest.strip_prefix(":f")?;
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_their_fences() {
        let rule = InitiatorRule::new("iqn.2026-01.test:run-1");
        for (name, fence) in [
            ("iqn.2026-01.test:run-1", Some(0)),
            ("iqn.2026-01.test:run-1:f0", Some(0)),
            ("iqn.2026-01.test:run-1:f12", Some(12)),
            ("iqn.2026-01.test:run-1:f", None),
            ("iqn.2026-01.test:run-1:f+1", None),
            ("iqn.2026-01.test:run-1:f1x", None),
            ("iqn.2026-01.test:run-1:f99999999999999999999", None),
            ("iqn.2026-01.test:run-12", None),
            ("iqn.2026-01.test:run", None),
            ("", None),
        ] {
            assert_eq!(rule.fence(name), fence, "{name}");
        }
        assert_eq!(rule.fence(&rule.name_for(7)), Some(7));
    }
}
