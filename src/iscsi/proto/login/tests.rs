//! Both ends against each other, and against PDUs that must not work.

use super::*;
use crate::iscsi::proto::chap::{Challenge, Chap};
use crate::iscsi::proto::error::{Error, LoginStatus, PeerIncompatible};
use crate::iscsi::proto::negotiate::{DigestPolicy, Proposal};
use crate::iscsi::proto::pdu::{Header, LoginResponse, Pdu, Stage};
use crate::iscsi::proto::text::Text;
use crate::secret::Secret;

const IQN: &str = "iqn.2026-01.test:disk";

fn proposal(digests: DigestPolicy) -> Proposal {
    Proposal {
        digests,
        max_recv_data_segment: 262_144,
        max_burst: 1 << 20,
        first_burst: 262_144,
        initial_r2t: false,
        immediate_data: true,
        max_outstanding_r2t: 1,
        time2wait: 2,
        time2retain: 0,
    }
}

fn chap(secret: &str, mutual: Option<&str>) -> Chap {
    Chap {
        user: "root".into(),
        secret: Secret::new(secret),
        mutual: mutual.map(|secret| ("target".into(), Secret::new(secret))),
    }
}

fn initiator(chap: Option<Chap>) -> InitiatorConfig {
    InitiatorConfig {
        initiator_name: "iqn.2026-01.test:host".into(),
        session: SessionType::Normal {
            target_name: IQN.into(),
        },
        isid: [0x80, 0, 0, 0, 0, 1],
        chap,
        challenge: Challenge {
            id: 7,
            bytes: [7; 32],
        },
        proposal: proposal(DigestPolicy::Preferred),
    }
}

fn target(chap: Option<Chap>) -> TargetConfig {
    TargetConfig {
        target_name: IQN.into(),
        chap,
        challenge: Challenge {
            id: 9,
            bytes: [9; 32],
        },
        proposal: proposal(DigestPolicy::Preferred),
        queue_depth: 32,
    }
}

/// Runs a login to its end on both sides.
fn login(initiator: InitiatorConfig, target: TargetConfig) -> Result<(LoggedIn, LoggedIn), Error> {
    let mut there = Box::new(Target::new(target));
    let (mut request, here) = Initiator::start(initiator)?;
    let mut here = Box::new(here);
    loop {
        let (response, end) = match there.handle(&request).unwrap() {
            TargetProgress::Send(pdu, next) => {
                there = next;
                match here.handle(&pdu)? {
                    InitiatorProgress::Send(pdu, next) => (request, here) = (pdu, next),
                    InitiatorProgress::Done(_) => panic!("initiator is done before the target"),
                }
                continue;
            }
            TargetProgress::Ready(ready) => {
                let (pdu, end) = ready.accept(5);
                (pdu, Some(end))
            }
            TargetProgress::Refuse(pdu) => (pdu, None),
        };
        return match here.handle(&response)? {
            InitiatorProgress::Done(logged_in) => Ok((logged_in, end.unwrap())),
            InitiatorProgress::Send(..) => panic!("target is done before the initiator"),
        };
    }
}

#[test]
fn without_authentication() {
    let (here, there) = login(initiator(None), target(None)).unwrap();
    assert!(here.params.digests.header && here.params.digests.data);
    assert!(!here.params.initial_r2t);
    assert_eq!(here.params.max_send_data_segment, 262_144);
    assert_eq!((here.tsih, there.tsih), (5, 5));
    assert_eq!(here.cmd_sn, there.cmd_sn);
    assert_eq!(here.stat_sn, there.stat_sn);
    assert_eq!(here.max_cmd_sn, here.cmd_sn + 31);
}

#[test]
fn with_chap_in_one_and_both_directions() {
    for mutual in [None, Some("from target")] {
        let both = chap("from initiator", mutual);
        login(initiator(Some(both.clone())), target(Some(both))).unwrap();
    }
}

#[test]
fn wrong_secrets_and_names_are_refused() {
    let refused = Err(Error::LoginRejected(LoginStatus::AUTHENTICATION_FAILURE));
    let good = || target(Some(chap("right", Some("other"))));
    assert_eq!(login(initiator(Some(chap("wrong", None))), good()), refused);
    let mut named = chap("right", None);
    named.user = "somebody".into();
    assert_eq!(login(initiator(Some(named)), good()), refused);
    assert_eq!(login(initiator(None), good()), refused);
    // A target that is not set up for mutual CHAP cannot do it.
    let one_way = target(Some(chap("right", None)));
    assert_eq!(
        login(initiator(Some(chap("right", Some("x")))), one_way),
        refused
    );
    // An initiator that insists on CHAP does not talk to a target that has none.
    assert_eq!(
        login(initiator(Some(chap("right", None))), target(None)),
        refused
    );
}

#[test]
fn a_false_target_is_found_out() {
    let wrong = target(Some(chap("right", Some("false"))));
    assert_eq!(
        login(initiator(Some(chap("right", Some("true")))), wrong),
        Err(Error::PeerNotAuthentic("wrong chap response"))
    );
}

#[test]
fn a_reflected_challenge_is_refused_by_both_ends() {
    let both = || Some(chap("right", Some("other")));
    let mut mirror = target(both());
    mirror.challenge = initiator(None).challenge;
    assert_eq!(
        login(initiator(both()), mirror),
        Err(Error::PeerNotAuthentic("it reflects our challenge"))
    );
}

#[test]
fn one_secret_for_both_directions_is_not_used() {
    let same = chap("same", Some("same"));
    assert!(matches!(
        login(initiator(Some(same.clone())), target(Some(same))),
        Err(Error::ApiMisuse(_))
    ));
}

#[test]
fn another_target_name_is_not_found() {
    let mut elsewhere = target(None);
    elsewhere.target_name = "iqn.2026-01.test:other".into();
    assert_eq!(
        login(initiator(None), elsewhere),
        Err(Error::LoginRejected(LoginStatus::NOT_FOUND))
    );
}

#[test]
fn required_digests_against_a_target_without() {
    let mut config = initiator(None);
    config.proposal.digests = DigestPolicy::Required;
    let mut plain = target(None);
    plain.proposal.digests = DigestPolicy::None;
    assert_eq!(
        login(config, plain),
        Err(PeerIncompatible::DigestRefused("HeaderDigest").into())
    );
}

#[test]
fn discovery_needs_no_target_name() {
    let mut config = initiator(None);
    config.session = SessionType::Discovery;
    login(config, target(None)).unwrap();
}

/// The pinned first request. If this fails do not change the test.
#[test]
fn first_request_on_the_wire() {
    let (pdu, _) = Initiator::start(initiator(None)).unwrap();
    assert_eq!(
        &pdu.data[..],
        b"InitiatorName=iqn.2026-01.test:host\0SessionType=Normal\0\
          TargetName=iqn.2026-01.test:disk\0AuthMethod=None\0"
    );
    assert_eq!(pdu.header.encode()[..4], [0x43, 0x81, 0, 0]); // T, CSG 0, NSG 1
    let (pdu, _) = Initiator::start(initiator(Some(chap("x", None)))).unwrap();
    assert_eq!(pdu.header.encode()[..4], [0x43, 0x00, 0, 0]);
    assert!(pdu.data.ends_with(b"AuthMethod=CHAP\0"));
}

fn respond_to(request: &Pdu, edit: impl FnOnce(&mut LoginResponse), text: &Text) -> Pdu {
    let Header::LoginRequest(request) = &request.header else {
        panic!("not a login request");
    };
    let mut response = LoginResponse {
        transit: request.transit,
        more_follows: false,
        csg: request.csg,
        nsg: request.nsg,
        version_max: 0,
        version_active: 0,
        isid: request.isid,
        tsih: 1,
        itt: request.itt,
        sn: crate::iscsi::proto::pdu::TargetSn {
            stat_sn: 1,
            exp_cmd_sn: 1,
            max_cmd_sn: 8,
        },
        status: LoginStatus::SUCCESS,
    };
    edit(&mut response);
    Pdu::new(response, text.encode())
}

#[test]
fn redirections_name_the_new_address() {
    let (request, login) = Initiator::start(initiator(None)).unwrap();
    let text = Text::new().with("TargetAddress", "10.0.0.9:3260,1");
    let moved = |response: &mut LoginResponse| response.status = LoginStatus::new(1, 1);
    let error = Box::new(login)
        .handle(&respond_to(&request, moved, &text))
        .unwrap_err();
    let address = "10.0.0.9:3260".to_owned();
    assert_eq!(
        error,
        Error::Redirected {
            address,
            permanent: false
        }
    );
}

#[test]
fn a_target_cannot_jump_or_go_in_circles() {
    let (request, login) = Initiator::start(initiator(None)).unwrap();
    let jump = |response: &mut LoginResponse| response.nsg = Stage::FullFeature;
    let text = Text::new().with("AuthMethod", "None");
    assert!(
        Box::new(login)
            .handle(&respond_to(&request, jump, &text))
            .is_err()
    );

    let (mut request, login) = Initiator::start(initiator(None)).unwrap();
    let mut login = Box::new(login);
    for _ in 0..MAX_ROUNDS + 1 {
        let stay = |response: &mut LoginResponse| response.transit = false;
        match login.handle(&respond_to(&request, stay, &text)) {
            Ok(InitiatorProgress::Send(pdu, next)) => (request, login) = (pdu, next),
            Ok(InitiatorProgress::Done(_)) => panic!("done without transit"),
            Err(_) => return,
        }
    }
    panic!("the circle does not end");
}

#[test]
fn continued_text_is_put_together() {
    let (request, login) = Initiator::start(initiator(Some(chap("x", None)))).unwrap();
    let half = respond_to(
        &request,
        |response| response.more_follows = true,
        &Text::new(),
    );
    let half = Pdu {
        data: bytes::Bytes::from_static(b"AuthMetho"),
        ..half
    };
    let Ok(InitiatorProgress::Send(request, login)) = Box::new(login).handle(&half) else {
        panic!("the second half is not asked for");
    };
    assert!(request.data.is_empty());
    let rest = respond_to(&request, |_| {}, &Text::new());
    let rest = Pdu {
        data: bytes::Bytes::from_static(b"d=CHAP\0"),
        ..rest
    };
    let Ok(InitiatorProgress::Send(request, _)) = login.handle(&rest) else {
        panic!("the method is not taken up");
    };
    assert_eq!(&request.data[..], b"CHAP_A=8,5,7,6\0");
}
