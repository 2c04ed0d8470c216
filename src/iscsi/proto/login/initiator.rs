//! The initiator's end of a login.

use super::{LoggedIn, MAX_ROUNDS, SessionType};
use crate::iscsi::proto::chap::{Algorithm, Challenge, Chap, decode_binary, encode_binary};
use crate::iscsi::proto::error::{Error, PeerIncompatible, PeerMisbehaved};
use crate::iscsi::proto::negotiate::{Params, Proposal};
use crate::iscsi::proto::pdu::{Header, Isid, LoginRequest, LoginResponse, Pdu, Stage};
use crate::iscsi::proto::text::{Continuation, Text};

/// Who logs in where, and what it wants.
#[derive(Debug, Clone)]
pub struct InitiatorConfig {
    /// InitiatorName.
    pub initiator_name: String,
    /// What the session is for.
    pub session: SessionType,
    /// The session's identifier on our side.
    pub isid: Isid,
    /// Names and secrets, if the target wants them.
    pub chap: Option<Chap>,
    /// Our challenge, for mutual CHAP.
    pub challenge: Challenge,
    /// What we propose.
    pub proposal: Proposal,
}

/// What to do after a response.
#[derive(Debug)]
pub enum InitiatorProgress {
    /// Send this, and give the answer to that.
    Send(Pdu, Box<Initiator>),
    /// The session is in the full feature phase.
    Done(LoggedIn),
}

/// A login under way, waiting for a response.
#[derive(Debug)]
pub struct Initiator {
    config: InitiatorConfig,
    exp_stat_sn: Option<u32>,
    rounds: u32,
    partial: Continuation,
    /// The stage and transit of the request that the response must match.
    asked: (Stage, Option<Stage>),
    state: State,
}

/// What the next response has to bring.
#[derive(Debug)]
enum State {
    AuthMethod(ExpectAuthMethod),
    Challenge(ExpectChallenge),
    ChapResult(ExpectChapResult),
    Operational(ExpectOperational),
}

#[derive(Debug)]
struct ExpectAuthMethod;

#[derive(Debug)]
struct ExpectChallenge(Chap);

#[derive(Debug)]
struct ExpectChapResult {
    algorithm: Algorithm,
    /// Name and secret that the target has to prove, unless it already did.
    mutual: Option<(String, crate::secret::Secret)>,
}

#[derive(Debug)]
struct ExpectOperational(Params);

/// What a state makes of a response.
enum Next {
    /// The next request: its text, the stage it asks for, the state that follows.
    Ask(Text, Option<Stage>, State),
    /// The security stage is over.
    Operational,
    Done(Params),
}

const ITT: u32 = 0;
const CMD_SN: u32 = 1;

impl Initiator {
    /// Begins a login: the first request, and the state that takes its response.
    ///
    /// # Errors
    /// If the same CHAP secret is configured for both directions.
    pub fn start(config: InitiatorConfig) -> Result<(Pdu, Self), Error> {
        let mut text = Text::new().with("InitiatorName", &*config.initiator_name);
        match &config.session {
            SessionType::Discovery => text.push("SessionType", "Discovery"),
            SessionType::Normal { target_name } => {
                text.push("SessionType", "Normal");
                text.push("TargetName", target_name);
            }
        }
        let transit = match &config.chap {
            Some(chap) if !chap.has_distinct_secrets() => {
                let reason = "chap secrets of initiator and target must differ";
                return Err(Error::ApiMisuse(reason));
            }
            Some(_) => {
                text.push("AuthMethod", "CHAP");
                None
            }
            None => {
                text.push("AuthMethod", "None");
                Some(Stage::Operational)
            }
        };
        let mut login = Self {
            config,
            exp_stat_sn: None,
            rounds: 0,
            partial: Continuation::default(),
            asked: (Stage::Security, transit),
            state: State::AuthMethod(ExpectAuthMethod),
        };
        let pdu = login.request(Stage::Security, transit, &text)?;
        Ok((pdu, login))
    }

    /// Takes the target's response.
    ///
    /// # Errors
    /// If the target refuses, redirects, or does not keep to the RFC.
    pub fn handle(mut self: Box<Self>, pdu: &Pdu) -> Result<InitiatorProgress, Error> {
        let Header::LoginResponse(response) = &pdu.header else {
            return Err(PeerMisbehaved::UnexpectedPdu {
                got: pdu.header.opcode(),
                during: "login",
            }
            .into());
        };
        self.check(response, &pdu.data)?;
        let Some(text) = self.partial.add(&pdu.data, response.more_follows)? else {
            // RFC 7143 section 6.2: an empty request asks for the rest.
            let pdu = self.request(self.asked.0, None, &Text::new())?;
            return Ok(InitiatorProgress::Send(pdu, self));
        };
        let granted = response.transit.then_some(response.nsg);
        if granted.is_some() && granted != self.asked.1 {
            return Err(PeerMisbehaved::Exchange("login goes to a stage not asked for").into());
        }
        let next = match self.state {
            State::AuthMethod(state) => state.handle(&self.config, granted, &text)?,
            State::Challenge(state) => state.handle(&self.config, &text)?,
            State::ChapResult(state) => state.handle(&self.config, granted, &text)?,
            State::Operational(state) => state.handle(&self.config, granted, &text)?,
        };
        let stage = self.asked.0;
        let (text, stage, transit, state) = match next {
            Next::Ask(text, transit, state) => (text, stage, transit, state),
            Next::Operational => {
                let proposal = &self.config.proposal;
                let discovery = self.config.session == SessionType::Discovery;
                let state = ExpectOperational(Params::before(proposal));
                (
                    proposal.offer(discovery),
                    Stage::Operational,
                    Some(Stage::FullFeature),
                    State::Operational(state),
                )
            }
            Next::Done(params) => {
                return Ok(InitiatorProgress::Done(LoggedIn {
                    params,
                    tsih: response.tsih,
                    // RFC 7143 section 4.2.2.1: the first command has the login's number.
                    cmd_sn: CMD_SN,
                    max_cmd_sn: response.sn.max_cmd_sn,
                    stat_sn: response.sn.stat_sn.wrapping_add(1),
                }));
            }
        };
        self.state = state;
        let pdu = self.request(stage, transit, &text)?;
        Ok(InitiatorProgress::Send(pdu, self))
    }

    fn request(&mut self, csg: Stage, transit: Option<Stage>, text: &Text) -> Result<Pdu, Error> {
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS {
            return Err(PeerMisbehaved::Exchange("login goes in circles").into());
        }
        self.asked = (csg, transit);
        let header = LoginRequest {
            transit: transit.is_some(),
            more_follows: false,
            csg,
            nsg: transit.unwrap_or(Stage::Security),
            version_max: 0,
            version_min: 0,
            isid: self.config.isid,
            tsih: 0,
            itt: ITT,
            cid: 0,
            cmd_sn: CMD_SN,
            exp_stat_sn: self.exp_stat_sn.unwrap_or(0),
        };
        Ok(Pdu::new(header, text.encode()))
    }

    /// What must hold for every response.
    fn check(&mut self, response: &LoginResponse, data: &[u8]) -> Result<(), Error> {
        match response.status.class {
            0 => {}
            1 => {
                let text = Text::decode(data)?;
                let address = text.value("TargetAddress").unwrap_or_default();
                // host:port,portal-group-tag
                let address = address.split(',').next().unwrap_or_default();
                return Err(Error::Redirected {
                    address: address.to_owned(),
                    permanent: response.status.detail == 2,
                });
            }
            _ => return Err(Error::LoginRejected(response.status)),
        }
        if response.version_active != 0 {
            return Err(PeerIncompatible::Version(response.version_active).into());
        }
        if response.itt != ITT {
            let (got, expected) = (u64::from(response.itt), u64::from(ITT));
            let field = "Initiator Task Tag";
            return Err(PeerMisbehaved::Sequence {
                field,
                got,
                expected,
            }
            .into());
        }
        if response.csg != self.asked.0 || (response.transit && response.more_follows) {
            return Err(PeerMisbehaved::Exchange("login response for another stage").into());
        }
        self.exp_stat_sn = Some(response.sn.stat_sn.wrapping_add(1));
        Ok(())
    }
}

impl ExpectAuthMethod {
    fn handle(
        self,
        config: &InitiatorConfig,
        granted: Option<Stage>,
        text: &Text,
    ) -> Result<Next, Error> {
        let method = text.value("AuthMethod");
        match (&config.chap, method) {
            (Some(chap), Some("CHAP")) => Ok(Next::Ask(
                Text::new().with("CHAP_A", Algorithm::OFFER),
                None,
                State::Challenge(ExpectChallenge(chap.clone())),
            )),
            (None, Some("None") | None) if granted.is_some() => Ok(Next::Operational),
            (None, Some("None") | None) => Ok(Next::Ask(
                Text::new(),
                Some(Stage::Operational),
                State::AuthMethod(self),
            )),
            (_, method) => {
                let method = method.unwrap_or_default().chars().take(80).collect();
                Err(PeerIncompatible::AuthMethod(method).into())
            }
        }
    }
}

impl ExpectChallenge {
    fn handle(self, config: &InitiatorConfig, text: &Text) -> Result<Next, Error> {
        let chosen = text.value("CHAP_A").unwrap_or_default();
        let algorithm = Algorithm::of(chosen)
            .ok_or_else(|| PeerIncompatible::ChapAlgorithm(chosen.chars().take(80).collect()))?;
        let id = text.value("CHAP_I").and_then(|id| id.parse::<u8>().ok());
        let challenge = text.value("CHAP_C").and_then(decode_binary);
        let (Some(id), Some(challenge)) = (id, challenge.filter(|bytes| !bytes.is_empty())) else {
            return Err(PeerMisbehaved::Exchange("no chap challenge").into());
        };
        let Self(chap) = self;
        let response = algorithm.respond(id, &chap.secret, &challenge);
        let mut text = Text::new()
            .with("CHAP_N", &*chap.user)
            .with("CHAP_R", encode_binary(&response));
        if chap.mutual.is_some() {
            // RFC 7143 section 12.1.3: a challenge of our own that comes back is an attack.
            if challenge == config.challenge.bytes {
                return Err(Error::PeerNotAuthentic("it reflects our challenge"));
            }
            text.push("CHAP_I", config.challenge.id.to_string());
            text.push("CHAP_C", encode_binary(&config.challenge.bytes));
        }
        let mutual = chap.mutual;
        let state = State::ChapResult(ExpectChapResult { algorithm, mutual });
        Ok(Next::Ask(text, Some(Stage::Operational), state))
    }
}

impl ExpectChapResult {
    fn handle(
        mut self,
        config: &InitiatorConfig,
        granted: Option<Stage>,
        text: &Text,
    ) -> Result<Next, Error> {
        if let Some((name, secret)) = self.mutual.take() {
            let Some(response) = text.value("CHAP_R").and_then(decode_binary) else {
                return Err(Error::PeerNotAuthentic("no chap response"));
            };
            let Challenge { id, bytes } = config.challenge;
            if !self.algorithm.verify(id, &secret, &bytes, &response) {
                return Err(Error::PeerNotAuthentic("wrong chap response"));
            }
            if text.value("CHAP_N") != Some(&*name) {
                return Err(Error::PeerNotAuthentic("another chap name than configured"));
            }
        }
        if granted.is_some() {
            return Ok(Next::Operational);
        }
        let state = State::ChapResult(self);
        Ok(Next::Ask(Text::new(), Some(Stage::Operational), state))
    }
}

impl ExpectOperational {
    fn handle(
        mut self,
        config: &InitiatorConfig,
        granted: Option<Stage>,
        text: &Text,
    ) -> Result<Next, Error> {
        self.0.merge_answers(&config.proposal, text)?;
        if granted.is_some() {
            return Ok(Next::Done(self.0.finish(&config.proposal)?));
        }
        let state = State::Operational(self);
        Ok(Next::Ask(Text::new(), Some(Stage::FullFeature), state))
    }
}
