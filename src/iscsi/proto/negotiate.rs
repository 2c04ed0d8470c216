//! Operational keys (RFC 7143 section 13): what we propose, how two proposals make a result.

use super::digest::Digests;
use super::error::{Error, PeerIncompatible, PeerMisbehaved};
use super::text::Text;

/// What we want of the CRC32C digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DigestPolicy {
    /// Without, whatever the peer would like.
    #[default]
    None,
    /// With, if the peer can.
    Preferred,
    /// With, or there is no session.
    Required,
}

/// What one side brings into the negotiation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// HeaderDigest and DataDigest.
    pub digests: DigestPolicy,
    /// MaxRecvDataSegmentLength in bytes that we declare.
    pub max_recv_data_segment: u32,
    /// MaxBurstLength in bytes.
    pub max_burst: u32,
    /// FirstBurstLength in bytes.
    pub first_burst: u32,
    /// InitialR2T: whether unsolicited Data-Out PDUs are forbidden.
    pub initial_r2t: bool,
    /// ImmediateData: whether a command PDU may carry data.
    pub immediate_data: bool,
    /// MaxOutstandingR2T per task.
    pub max_outstanding_r2t: u32,
    /// DefaultTime2Wait in seconds.
    pub time2wait: u32,
    /// DefaultTime2Retain in seconds.
    pub time2retain: u32,
}

/// What holds on a connection after its login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// Digests on this connection.
    pub digests: Digests,
    /// The longest data segment that we may be sent.
    pub max_recv_data_segment: u32,
    /// The longest data segment that the peer takes: its MaxRecvDataSegmentLength.
    pub max_send_data_segment: u32,
    /// MaxBurstLength in bytes.
    pub max_burst: u32,
    /// FirstBurstLength in bytes.
    pub first_burst: u32,
    /// InitialR2T.
    pub initial_r2t: bool,
    /// ImmediateData.
    pub immediate_data: bool,
    /// MaxOutstandingR2T.
    pub max_outstanding_r2t: u32,
    /// MaxConnections.
    pub max_connections: u32,
    /// ErrorRecoveryLevel.
    pub error_recovery_level: u32,
    /// DefaultTime2Wait in seconds.
    pub time2wait: u32,
    /// DefaultTime2Retain in seconds.
    pub time2retain: u32,
}

/// The values that hold where nothing is negotiated.
impl Default for Params {
    fn default() -> Self {
        Self {
            digests: Digests::default(),
            max_recv_data_segment: 8192,
            max_send_data_segment: 8192,
            max_burst: 262_144,
            first_burst: 65_536,
            initial_r2t: true,
            immediate_data: true,
            max_outstanding_r2t: 1,
            max_connections: 1,
            error_recovery_level: 0,
            time2wait: 2,
            time2retain: 20,
        }
    }
}

/// What came of one pair of the peer's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The result, which a responder sends back.
    Value(String),
    /// A declaration, which nobody answers.
    None,
    /// The value is none that the key may have, or none that we can accept.
    Reject,
    /// We do not know the key.
    NotUnderstood,
}

/// The largest length that a 24-bit field holds.
const MAX_LENGTH: u32 = 0x00ff_ffff;

impl Proposal {
    /// The initiator's offer. A discovery session has none of the keys about data.
    #[must_use]
    pub fn offer(&self, discovery: bool) -> Text {
        let digests = match self.digests {
            DigestPolicy::None => "None",
            DigestPolicy::Preferred => "CRC32C,None",
            DigestPolicy::Required => "CRC32C",
        };
        let mut text = Text::new()
            .with("HeaderDigest", digests)
            .with("DataDigest", digests)
            .with(
                "MaxRecvDataSegmentLength",
                self.max_recv_data_segment.to_string(),
            )
            .with("DefaultTime2Wait", self.time2wait.to_string())
            .with("DefaultTime2Retain", self.time2retain.to_string());
        if !discovery {
            text = text
                .with("MaxConnections", "1")
                .with("ErrorRecoveryLevel", "0")
                .with("InitialR2T", yes_no(self.initial_r2t))
                .with("ImmediateData", yes_no(self.immediate_data))
                .with("MaxBurstLength", self.max_burst.to_string())
                .with("FirstBurstLength", self.first_burst.to_string())
                .with("MaxOutstandingR2T", self.max_outstanding_r2t.to_string())
                .with("DataPDUInOrder", "Yes")
                .with("DataSequenceInOrder", "Yes");
        }
        text
    }

    /// Whether a digest value is one we take.
    fn takes_digest(&self, value: &str) -> bool {
        match self.digests {
            DigestPolicy::None => value == "None",
            DigestPolicy::Preferred => matches!(value, "CRC32C" | "None"),
            DigestPolicy::Required => value == "CRC32C",
        }
    }
}

impl Params {
    /// What holds if the peer is silent on every key.
    #[must_use]
    pub fn before(ours: &Proposal) -> Self {
        Self {
            max_recv_data_segment: ours.max_recv_data_segment,
            ..Self::default()
        }
    }

    /// Merges one pair of the peer's, offer or answer, into the result.
    ///
    /// The rules are symmetric, so both ends use this: a responder sends the [`Answer`], an
    /// initiator has sent its own side before.
    pub fn merge(&mut self, ours: &Proposal, key: &str, value: &str) -> Answer {
        use Rule::{And, Max, Min, Or};
        let lengths = 512..=MAX_LENGTH;
        match key {
            "HeaderDigest" => select(&mut self.digests.header, ours, value),
            "DataDigest" => select(&mut self.digests.data, ours, value),
            "MaxRecvDataSegmentLength" => match number(value) {
                Some(length) if lengths.contains(&length) => {
                    self.max_send_data_segment = length;
                    Answer::None
                }
                _ => Answer::Reject,
            },
            "MaxBurstLength" => Min(lengths).apply(&mut self.max_burst, ours.max_burst, value),
            "FirstBurstLength" => {
                Min(lengths).apply(&mut self.first_burst, ours.first_burst, value)
            }
            "MaxOutstandingR2T" => Min(1..=65_535).apply(
                &mut self.max_outstanding_r2t,
                ours.max_outstanding_r2t,
                value,
            ),
            "MaxConnections" => Min(1..=65_535).apply(&mut self.max_connections, 1, value),
            "ErrorRecoveryLevel" => Min(0..=2).apply(&mut self.error_recovery_level, 0, value),
            "DefaultTime2Wait" => Max(0..=3600).apply(&mut self.time2wait, ours.time2wait, value),
            "DefaultTime2Retain" => {
                Min(0..=3600).apply(&mut self.time2retain, ours.time2retain, value)
            }
            "InitialR2T" => Or.apply_bool(&mut self.initial_r2t, ours.initial_r2t, value),
            "ImmediateData" => And.apply_bool(&mut self.immediate_data, ours.immediate_data, value),
            // We can do it only in order, and the rule is OR: the result is always Yes.
            "DataPDUInOrder" | "DataSequenceInOrder" => Or.apply_bool(&mut true, true, value),
            // RFC 7143 section 13.25: markers are gone.
            "IFMarker" | "OFMarker" => Answer::Value("No".into()),
            _ => Answer::NotUnderstood,
        }
    }

    /// Merges the target's answers to our [`Proposal::offer`].
    ///
    /// # Errors
    /// If a value is out of its range, or a digest that we require is refused.
    pub fn merge_answers(&mut self, ours: &Proposal, answers: &Text) -> Result<(), Error> {
        for (key, value) in answers.iter() {
            let refused = matches!(value, "Reject" | "NotUnderstood" | "Irrelevant");
            let is_digest = matches!(key, "HeaderDigest" | "DataDigest");
            if is_digest && (refused || !ours.takes_digest(value)) {
                return Err(digest_error(ours, key, value));
            }
            if value == "Reject" {
                return Err(PeerIncompatible::KeyRefused {
                    key: key.to_owned(),
                    value: value.to_owned(),
                }
                .into());
            }
            if !refused && self.merge(ours, key, value) == Answer::Reject {
                return Err(PeerMisbehaved::Key {
                    key: key.to_owned(),
                    value: value.chars().take(80).collect(),
                }
                .into());
            }
        }
        Ok(())
    }

    /// Checks the whole once the login ends.
    ///
    /// # Errors
    /// If digests are required and were not agreed on.
    pub fn finish(mut self, ours: &Proposal) -> Result<Self, Error> {
        if ours.digests == DigestPolicy::Required {
            for (on, key) in [
                (self.digests.header, "HeaderDigest"),
                (self.digests.data, "DataDigest"),
            ] {
                if !on {
                    return Err(PeerIncompatible::DigestRefused(key).into());
                }
            }
        }
        self.first_burst = self.first_burst.min(self.max_burst);
        Ok(self)
    }
}

fn digest_error(ours: &Proposal, key: &str, value: &str) -> Error {
    match ours.digests {
        DigestPolicy::Required if key == "HeaderDigest" => {
            PeerIncompatible::DigestRefused("HeaderDigest").into()
        }
        DigestPolicy::Required => PeerIncompatible::DigestRefused("DataDigest").into(),
        _ => PeerMisbehaved::Key {
            key: key.to_owned(),
            value: value.chars().take(80).collect(),
        }
        .into(),
    }
}

/// How two values make one (RFC 7143 section 6.2).
enum Rule {
    Min(std::ops::RangeInclusive<u32>),
    Max(std::ops::RangeInclusive<u32>),
    And,
    Or,
}

impl Rule {
    fn apply(self, result: &mut u32, ours: u32, theirs: &str) -> Answer {
        let Some(theirs) = number(theirs) else {
            return Answer::Reject;
        };
        let (range, value) = match self {
            Self::Min(range) => (range, ours.min(theirs)),
            Self::Max(range) => (range, ours.max(theirs)),
            Self::And | Self::Or => return Answer::Reject,
        };
        if !range.contains(&theirs) {
            return Answer::Reject;
        }
        *result = value;
        Answer::Value(value.to_string())
    }

    fn apply_bool(self, result: &mut bool, ours: bool, theirs: &str) -> Answer {
        let theirs = match theirs {
            "Yes" => true,
            "No" => false,
            _ => return Answer::Reject,
        };
        *result = match self {
            Self::And => ours && theirs,
            _ => ours || theirs,
        };
        Answer::Value(yes_no(*result).to_owned())
    }
}

/// The first value of the peer's list that we take.
fn select(result: &mut bool, ours: &Proposal, list: &str) -> Answer {
    match list.split(',').find(|value| ours.takes_digest(value)) {
        Some(value) => {
            *result = value == "CRC32C";
            Answer::Value(value.to_owned())
        }
        None => Answer::Reject,
    }
}

/// A number in decimal or, with `0x`, in hexadecimal (RFC 7143 section 6.1).
pub(super) fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn yes_no(value: bool) -> &'static str {
    if value { "Yes" } else { "No" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ours() -> Proposal {
        Proposal {
            digests: DigestPolicy::Preferred,
            max_recv_data_segment: 262_144,
            max_burst: 1 << 20,
            first_burst: 262_144,
            initial_r2t: false,
            immediate_data: true,
            max_outstanding_r2t: 4,
            time2wait: 2,
            time2retain: 0,
        }
    }

    #[test]
    fn each_key_by_its_rule() {
        let value = |text: &str| Answer::Value(text.to_owned());
        let table = [
            ("HeaderDigest", "CRC32C,None", value("CRC32C")),
            ("HeaderDigest", "None,CRC32C", value("None")),
            ("DataDigest", "X-MD5,None", value("None")),
            ("DataDigest", "X-MD5", Answer::Reject),
            ("MaxRecvDataSegmentLength", "65536", Answer::None),
            ("MaxRecvDataSegmentLength", "511", Answer::Reject),
            ("MaxBurstLength", "0x40000", value("262144")),
            ("MaxBurstLength", "16776192", value("1048576")),
            ("MaxBurstLength", "16777216", Answer::Reject),
            ("FirstBurstLength", "65536", value("65536")),
            ("MaxOutstandingR2T", "1", value("1")),
            ("MaxOutstandingR2T", "0", Answer::Reject),
            ("MaxConnections", "8", value("1")),
            ("ErrorRecoveryLevel", "2", value("0")),
            ("ErrorRecoveryLevel", "3", Answer::Reject),
            ("DefaultTime2Wait", "5", value("5")),
            ("DefaultTime2Retain", "20", value("0")),
            ("InitialR2T", "No", value("No")),
            ("InitialR2T", "Yes", value("Yes")),
            ("InitialR2T", "yes", Answer::Reject),
            ("ImmediateData", "No", value("No")),
            ("ImmediateData", "Yes", value("Yes")),
            ("DataPDUInOrder", "No", value("Yes")),
            ("DataSequenceInOrder", "No", value("Yes")),
            ("IFMarker", "No", value("No")),
            ("X-com.example", "1", Answer::NotUnderstood),
        ];
        for (key, theirs, answer) in table {
            let mut params = Params::before(&ours());
            assert_eq!(params.merge(&ours(), key, theirs), answer, "{key}={theirs}");
        }
    }

    #[test]
    fn silence_means_the_defaults() {
        let params = Params::before(&ours()).finish(&ours()).unwrap();
        assert_eq!(params.first_burst, 65_536);
        assert_eq!(params.max_burst, 262_144);
        assert_eq!(params.max_send_data_segment, 8192);
        assert_eq!(params.max_recv_data_segment, 262_144);
        assert!(params.initial_r2t && params.immediate_data);
    }

    #[test]
    fn answers_of_a_target() {
        let mut params = Params::before(&ours());
        let answers = Text::new()
            .with("HeaderDigest", "None")
            .with("DataDigest", "CRC32C")
            .with("InitialR2T", "Yes")
            .with("ImmediateData", "Yes")
            .with("FirstBurstLength", "65536")
            .with("MaxBurstLength", "262144")
            .with("MaxRecvDataSegmentLength", "8192")
            .with("MaxConnections", "Irrelevant")
            .with("TargetAlias", "whatever");
        params.merge_answers(&ours(), &answers).unwrap();
        let params = params.finish(&ours()).unwrap();
        assert_eq!(
            params.digests,
            Digests {
                header: false,
                data: true
            }
        );
        assert!(params.initial_r2t);
        assert_eq!((params.first_burst, params.max_burst), (65_536, 262_144));
    }

    #[test]
    fn required_digests_are_insisted_on() {
        let ours = Proposal {
            digests: DigestPolicy::Required,
            ..ours()
        };
        for value in ["None", "Reject", "NotUnderstood"] {
            let answers = Text::new().with("HeaderDigest", value);
            assert_eq!(
                Params::before(&ours).merge_answers(&ours, &answers),
                Err(PeerIncompatible::DigestRefused("HeaderDigest").into())
            );
        }
        assert!(Params::before(&ours).finish(&ours).is_err());
    }

    #[test]
    fn refused_and_broken_answers() {
        let mut params = Params::before(&ours());
        assert!(matches!(
            params.merge_answers(&ours(), &Text::new().with("MaxBurstLength", "Reject")),
            Err(Error::PeerIncompatible(PeerIncompatible::KeyRefused { .. }))
        ));
        assert!(matches!(
            params.merge_answers(&ours(), &Text::new().with("MaxBurstLength", "lots")),
            Err(Error::PeerMisbehaved(PeerMisbehaved::Key { .. }))
        ));
    }

    proptest! {
        /// Two of our own ends agree, whatever they propose.
        #[test]
        fn both_ends_agree(burst in 512u32..1 << 24, first in 512u32..1 << 24,
                           r2t: bool, immediate: bool, digests in 0usize..3) {
            let policies = [DigestPolicy::None, DigestPolicy::Preferred, DigestPolicy::Required];
            let initiator = Proposal {
                digests: policies[digests], max_burst: burst, first_burst: first,
                initial_r2t: r2t, immediate_data: immediate, ..ours()
            };
            let target = ours();
            let (mut here, mut there) = (Params::before(&initiator), Params::before(&target));
            let mut answers = Text::new();
            for (key, value) in initiator.offer(false).iter() {
                match there.merge(&target, key, value) {
                    Answer::Value(value) => answers.push(key, value),
                    Answer::None => {}
                    other => prop_assert!(false, "{key}={value}: {other:?}"),
                }
            }
            here.merge_answers(&initiator, &answers).unwrap();
            let (here, there) = (here.finish(&initiator).unwrap(), there.finish(&target).unwrap());
            prop_assert_eq!(here.digests, there.digests);
            prop_assert_eq!(here.max_burst, there.max_burst);
            prop_assert_eq!(here.first_burst, there.first_burst);
            prop_assert_eq!(here.initial_r2t, there.initial_r2t);
            prop_assert_eq!(here.immediate_data, there.immediate_data);
            prop_assert_eq!(here.max_outstanding_r2t, there.max_outstanding_r2t);
        }

        #[test]
        fn never_panics(key in "[A-Za-z]{1,20}", value: String) {
            let mut params = Params::before(&ours());
            params.merge(&ours(), &key, &value);
        }
    }
}
