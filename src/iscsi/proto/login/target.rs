//! The target's end of a login.

use super::{LoggedIn, MAX_ROUNDS, SessionType};
use crate::iscsi::proto::chap::{Algorithm, Challenge, Chap, decode_binary, encode_binary};
use crate::iscsi::proto::error::{Error, LoginStatus, PeerMisbehaved};
use crate::iscsi::proto::negotiate::{Answer, Params, Proposal};
use crate::iscsi::proto::pdu::{Header, Isid, LoginRequest, LoginResponse, Pdu, Stage, TargetSn};
use crate::iscsi::proto::text::{Continuation, Text};

/// What a target is and wants.
#[derive(Debug, Clone)]
pub struct TargetConfig {
    /// TargetName.
    pub target_name: String,
    /// Names and secrets that an initiator must know.
    pub chap: Option<Chap>,
    /// Our challenge, for CHAP.
    pub challenge: Challenge,
    /// What we propose.
    pub proposal: Proposal,
    /// How many commands an initiator may send ahead.
    pub queue_depth: u32,
}

/// What to do after a request.
#[derive(Debug)]
pub enum TargetProgress {
    /// Send this, and give the answer to that.
    Send(Pdu, Box<Target>),
    /// The initiator has proven who it is and both agree; the caller has the last word.
    Ready(Box<Ready>),
    /// Send this and close the connection.
    Refuse(Pdu),
}

/// A login under way, waiting for a request.
#[derive(Debug)]
pub struct Target {
    config: TargetConfig,
    stat_sn: u32,
    rounds: u32,
    partial: Continuation,
    params: Params,
    declared: bool,
    who: Option<Who>,
    state: State,
}

/// What the first request said.
#[derive(Debug, Clone)]
struct Who {
    initiator_name: String,
    session: SessionType,
}

#[derive(Debug)]
enum State {
    First(ExpectFirst),
    Algorithms(ExpectAlgorithms),
    ChapResponse(ExpectChapResponse),
    /// Authenticated; still in the security stage until the initiator transits.
    EndOfSecurity(ExpectEndOfSecurity),
    Operational(ExpectOperational),
}

#[derive(Debug)]
struct ExpectFirst;
#[derive(Debug)]
struct ExpectAlgorithms(Chap);
#[derive(Debug)]
struct ExpectChapResponse(Chap, Algorithm);
#[derive(Debug)]
struct ExpectEndOfSecurity;
#[derive(Debug)]
struct ExpectOperational;

/// What a state makes of a request: the answer, whether a transit may be granted, its successor.
type Step = Result<(Text, bool, State), LoginStatus>;

impl Target {
    /// Waits for the first request of a connection.
    #[must_use]
    pub fn new(config: TargetConfig) -> Self {
        let params = Params::before(&config.proposal);
        Self {
            config,
            stat_sn: 1,
            rounds: 0,
            partial: Continuation::default(),
            params,
            declared: false,
            who: None,
            state: State::First(ExpectFirst),
        }
    }

    /// Takes the initiator's request.
    ///
    /// # Errors
    /// If what came is not a Login Request or its text is malformed: close the connection.
    pub fn handle(mut self: Box<Self>, pdu: &Pdu) -> Result<TargetProgress, Error> {
        let Header::LoginRequest(request) = &pdu.header else {
            return Err(PeerMisbehaved::UnexpectedPdu {
                got: pdu.header.opcode(),
                during: "login",
            }
            .into());
        };
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS {
            return Err(PeerMisbehaved::Exchange("login goes in circles").into());
        }
        if request.version_min > 0 {
            let status = LoginStatus::UNSUPPORTED_VERSION;
            return Ok(TargetProgress::Refuse(self.refusal(request, status)));
        }
        let Some(text) = self.partial.add(&pdu.data, request.more_follows)? else {
            let response = self.response(request, None);
            return Ok(TargetProgress::Send(Pdu::bare(response), self));
        };
        let step = self.step(request, &text);
        let (answer, may_transit) = match step {
            Ok(step) => step,
            Err(status) => return Ok(TargetProgress::Refuse(self.refusal(request, status))),
        };
        let granted = (request.transit && may_transit).then_some(request.nsg);
        let response = self.response(request, granted);
        match granted {
            Some(Stage::FullFeature) => Ok(self.ready(request, response, answer)),
            Some(Stage::Security | Stage::Reserved) => {
                let status = LoginStatus::INITIATOR_ERROR;
                Ok(TargetProgress::Refuse(self.refusal(request, status)))
            }
            Some(Stage::Operational) => {
                self.state = State::Operational(ExpectOperational);
                Ok(TargetProgress::Send(
                    Pdu::new(response, answer.encode()),
                    self,
                ))
            }
            None => Ok(TargetProgress::Send(
                Pdu::new(response, answer.encode()),
                self,
            )),
        }
    }

    fn step(&mut self, request: &LoginRequest, text: &Text) -> Result<(Text, bool), LoginStatus> {
        // Only handle() above puts a state back; an error ends the login.
        let state = std::mem::replace(&mut self.state, State::First(ExpectFirst));
        let security = request.csg == Stage::Security;
        let (answer, may_transit, state) = match state {
            State::First(state) => state.handle(self, request, text)?,
            State::Algorithms(state) if security => state.handle(&self.config, text)?,
            State::ChapResponse(state) if security => state.handle(&self.config, text)?,
            State::EndOfSecurity(state) if security => {
                (Text::new(), true, State::EndOfSecurity(state))
            }
            State::Operational(state) if request.csg == Stage::Operational => {
                (self.negotiate(text), true, State::Operational(state))
            }
            _ => return Err(LoginStatus::INVALID_DURING_LOGIN),
        };
        self.state = state;
        Ok((answer, may_transit))
    }

    /// Answers operational keys, and once declares our own.
    fn negotiate(&mut self, text: &Text) -> Text {
        let mut answers = Text::new();
        for (key, value) in text.iter() {
            if is_declaration(key) {
                continue;
            }
            match self.params.merge(&self.config.proposal, key, value) {
                Answer::Value(value) => answers.push(key, value),
                Answer::None => {}
                Answer::Reject => answers.push(key, "Reject"),
                Answer::NotUnderstood => answers.push(key, "NotUnderstood"),
            }
        }
        if !self.declared {
            self.declared = true;
            let length = self.config.proposal.max_recv_data_segment;
            answers.push("MaxRecvDataSegmentLength", length.to_string());
        }
        answers
    }

    fn response(&mut self, request: &LoginRequest, granted: Option<Stage>) -> LoginResponse {
        let stat_sn = self.stat_sn;
        self.stat_sn = stat_sn.wrapping_add(1);
        LoginResponse {
            transit: granted.is_some(),
            more_follows: false,
            csg: request.csg,
            nsg: granted.unwrap_or(Stage::Security),
            version_max: 0,
            version_active: 0,
            isid: request.isid,
            tsih: request.tsih,
            itt: request.itt,
            sn: TargetSn {
                stat_sn,
                exp_cmd_sn: request.cmd_sn,
                max_cmd_sn: request
                    .cmd_sn
                    .wrapping_add(self.config.queue_depth)
                    .wrapping_sub(1),
            },
            status: LoginStatus::SUCCESS,
        }
    }

    fn refusal(&mut self, request: &LoginRequest, status: LoginStatus) -> Pdu {
        refused(&self.response(request, None), status)
    }

    fn ready(
        self: Box<Self>,
        request: &LoginRequest,
        response: LoginResponse,
        text: Text,
    ) -> TargetProgress {
        let refuse = |status| TargetProgress::Refuse(refused(&response, status));
        let Some(who) = self.who else {
            return refuse(LoginStatus::MISSING_PARAMETER);
        };
        match self.params.finish(&self.config.proposal) {
            Ok(params) => TargetProgress::Ready(Box::new(Ready {
                initiator_name: who.initiator_name,
                session: who.session,
                isid: request.isid,
                tsih: request.tsih,
                params,
                response,
                text,
            })),
            Err(_) => refuse(LoginStatus::INITIATOR_ERROR),
        }
    }
}

fn refused(response: &LoginResponse, status: LoginStatus) -> Pdu {
    Pdu::bare(LoginResponse {
        transit: false,
        status,
        ..response.clone()
    })
}

/// Keys that an initiator may repeat or tell at any time, which nobody answers.
fn is_declaration(key: &str) -> bool {
    matches!(
        key,
        "InitiatorName" | "InitiatorAlias" | "TargetName" | "SessionType" | "AuthMethod"
    )
}

impl ExpectFirst {
    fn handle(self, login: &mut Target, request: &LoginRequest, text: &Text) -> Step {
        let name = text.value("InitiatorName").filter(|name| !name.is_empty());
        let initiator_name = name.ok_or(LoginStatus::MISSING_PARAMETER)?.to_owned();
        let mut answer = Text::new();
        let session = match text.value("SessionType").unwrap_or("Normal") {
            "Discovery" => SessionType::Discovery,
            "Normal" => {
                let name = text.value("TargetName");
                let target_name = name.ok_or(LoginStatus::MISSING_PARAMETER)?.to_owned();
                if target_name != login.config.target_name {
                    return Err(LoginStatus::NOT_FOUND);
                }
                // RFC 7143 section 13.9: goes with the first response that names a target.
                answer.push("TargetPortalGroupTag", "1");
                SessionType::Normal { target_name }
            }
            _ => return Err(LoginStatus::SESSION_TYPE_NOT_SUPPORTED),
        };
        login.who = Some(Who {
            initiator_name,
            session,
        });
        let methods = text.value("AuthMethod").unwrap_or("None");
        let offers = |method: &str| methods.split(',').any(|offered| offered == method);
        match (login.config.chap.clone(), request.csg) {
            (Some(chap), Stage::Security) if offers("CHAP") => {
                answer.push("AuthMethod", "CHAP");
                Ok((answer, false, State::Algorithms(ExpectAlgorithms(chap))))
            }
            (Some(_), _) => Err(LoginStatus::AUTHENTICATION_FAILURE),
            (None, Stage::Security) if offers("None") => {
                if text.value("AuthMethod").is_some() {
                    answer.push("AuthMethod", "None");
                }
                Ok((answer, true, State::EndOfSecurity(ExpectEndOfSecurity)))
            }
            (None, Stage::Security) => Err(LoginStatus::AUTHENTICATION_FAILURE),
            (None, Stage::Operational) => {
                for (key, value) in login.negotiate(text).iter() {
                    answer.push(key, value);
                }
                Ok((answer, true, State::Operational(ExpectOperational)))
            }
            (None, _) => Err(LoginStatus::INVALID_DURING_LOGIN),
        }
    }
}

impl ExpectAlgorithms {
    fn handle(self, config: &TargetConfig, text: &Text) -> Step {
        let list = text.value("CHAP_A").ok_or(LoginStatus::MISSING_PARAMETER)?;
        let algorithm = Algorithm::strongest(list).ok_or(LoginStatus::AUTHENTICATION_FAILURE)?;
        let answer = Text::new()
            .with("CHAP_A", algorithm.number())
            .with("CHAP_I", config.challenge.id.to_string())
            .with("CHAP_C", encode_binary(&config.challenge.bytes));
        let state = State::ChapResponse(ExpectChapResponse(self.0, algorithm));
        Ok((answer, false, state))
    }
}

impl ExpectChapResponse {
    fn handle(self, config: &TargetConfig, text: &Text) -> Step {
        let Self(chap, algorithm) = self;
        let Challenge { id, bytes } = config.challenge;
        let response = text.value("CHAP_R").and_then(decode_binary);
        let response = response.ok_or(LoginStatus::AUTHENTICATION_FAILURE)?;
        let proven = algorithm.verify(id, &chap.secret, &bytes, &response);
        if !proven || text.value("CHAP_N") != Some(&*chap.user) {
            return Err(LoginStatus::AUTHENTICATION_FAILURE);
        }
        let mut answer = Text::new();
        if let (Some(id), Some(challenge)) = (text.value("CHAP_I"), text.value("CHAP_C")) {
            let id: u8 = id.parse().map_err(|_| LoginStatus::INITIATOR_ERROR)?;
            let challenge = decode_binary(challenge).ok_or(LoginStatus::INITIATOR_ERROR)?;
            // RFC 7143 section 12.1.3: never answer our own challenge.
            let (name, secret) = chap
                .mutual
                .filter(|_| challenge != bytes && !challenge.is_empty())
                .ok_or(LoginStatus::AUTHENTICATION_FAILURE)?;
            let response = algorithm.respond(id, &secret, &challenge);
            answer.push("CHAP_N", name);
            answer.push("CHAP_R", encode_binary(&response));
        }
        Ok((answer, true, State::EndOfSecurity(ExpectEndOfSecurity)))
    }
}

/// A login that needs only the caller's consent.
#[derive(Debug)]
pub struct Ready {
    /// Who it is; proven, if CHAP is on.
    pub initiator_name: String,
    /// What the session is for.
    pub session: SessionType,
    /// The initiator's session identifier.
    pub isid: Isid,
    /// 0 for a new session, else the session that the connection wants to join.
    pub tsih: u16,
    params: Params,
    response: LoginResponse,
    text: Text,
}

impl Ready {
    /// Lets the initiator in: the last response, and what the session starts with.
    #[must_use]
    pub fn accept(self, tsih: u16) -> (Pdu, LoggedIn) {
        let response = LoginResponse {
            tsih,
            ..self.response
        };
        let logged_in = LoggedIn {
            params: self.params,
            tsih,
            cmd_sn: response.sn.exp_cmd_sn,
            max_cmd_sn: response.sn.max_cmd_sn,
            stat_sn: response.sn.stat_sn.wrapping_add(1),
        };
        (Pdu::new(response, self.text.encode()), logged_in)
    }

    /// Turns the initiator away: the last response.
    #[must_use]
    pub fn refuse(self, status: LoginStatus) -> Pdu {
        refused(&self.response, status)
    }
}
