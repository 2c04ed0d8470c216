//! Every class of error in every dialect: kind, the iLO's own code and text, and a hint. TLS that
//! is too old is in `tls`, what is no iLO in `detection`.

use super::site::{PASSWORD, Site, TIMEOUT, assert_clean, pattern};
use flowrun::error::{Error, Kind};
use flowrun::ilo::model::{BootDevice, Device, Dialect, PowerTarget};
use flowrun::ilo::{Ilo, IloOptions};
use flowrun::lab::ilo::{Fault, Generation};
use flowrun::secret::Secret;
use std::time::Duration;

/// Longer than one attempt, shorter than the server's self test.
const SHORT: Duration = Duration::from_secs(1);

const DIALECTS: [Dialect; 3] = [Dialect::Redfish, Dialect::Rest, Dialect::Ribcl];

/// What is asked for; what the iLO says to it in each of [`DIALECTS`], nothing if it has no words.
struct Case {
    blame: &'static str,
    faults: &'static [Fault],
    call: Call,
    kind: Kind,
    is_retryable: bool,
    said: [&'static str; 3],
}

#[derive(Debug, Clone, Copy)]
enum Call {
    Connect,
    ConnectWithWrongPassword,
    PowerOn,
    Attach,
    BootOnce,
    /// During the self test.
    BootOnceInPost,
    /// Of a server that somebody else switched off just now.
    Reset,
}

const CASES: &[Case] = &[
    Case {
        blame: "login",
        faults: &[],
        call: Call::ConnectWithWrongPassword,
        kind: Kind::Auth,
        is_retryable: false,
        said: [
            "iLO.2.25.UnauthorizedLoginAttempt: The login was not successful",
            "iLO.0.10.UnauthorizedLoginAttempt: The login was not successful",
            "0x005F: Login failed",
        ],
    },
    Case {
        blame: "sessions",
        faults: &[Fault::SessionsTaken],
        call: Call::Connect,
        kind: Kind::Limit,
        is_retryable: false,
        said: [
            "Base.1.18.SessionLimitExceeded: The session establishment did not complete",
            "Base.0.10.SessionLimitExceeded: The session establishment did not complete",
            "",
        ],
    },
    Case {
        blame: "RIBCL switched off",
        faults: &[Fault::RibclDisabled],
        call: Call::Connect,
        kind: Kind::Unsupported,
        is_retryable: false,
        said: ["", "", "0x00FF: Error: RIBCLI is disabled"],
    },
    Case {
        blame: "privilege",
        faults: &[Fault::PrivilegesMissing],
        call: Call::PowerOn,
        kind: Kind::Auth,
        is_retryable: false,
        said: [
            "Base.1.18.InsufficientPrivilege: The account or credentials",
            "Base.0.10.InsufficientPrivilege: The account or credentials",
            "0x0023: User does NOT have correct privilege for action. RESET_SERVER_PRIV required",
        ],
    },
    Case {
        blame: "licence",
        faults: &[Fault::InsertLicenseRejected],
        call: Call::Attach,
        kind: Kind::Unsupported,
        is_retryable: false,
        said: [
            "iLO.2.25.LicenseKeyRequired: A license key is required",
            "iLO.0.10.LicenseKeyRequired: A license key is required",
            "0x00FF: This feature requires an iLO Advanced license",
        ],
    },
    Case {
        blame: "firmware",
        faults: &[Fault::BootUnsupported],
        call: Call::BootOnce,
        kind: Kind::Unsupported,
        is_retryable: false,
        said: [
            "iLO.2.25.UnsupportedOperation: This operation is not supported",
            "iLO.0.10.UnsupportedOperation: This operation is not supported",
            "0x003C: Feature not supported",
        ],
    },
    Case {
        blame: "wrong state",
        faults: &[Fault::PowerShownLate],
        call: Call::Reset,
        kind: Kind::Conflict,
        is_retryable: false,
        said: [
            "iLO.2.25.InvalidOperationForSystemState: The operation was not successful",
            "iLO.0.10.InvalidOperationForSystemState: The operation was not successful",
            "0x00FF: Server is currently powered off",
        ],
    },
    Case {
        blame: "self test",
        faults: &[],
        call: Call::BootOnceInPost,
        kind: Kind::Conflict,
        is_retryable: true,
        said: [
            "iLO.2.25.UnableToModifyDuringSystemPOST: The value for property \
             BootSourceOverrideTarget cannot be changed",
            "iLO.0.10.UnableToModifyDuringSystemPOST: The value for property \
             BootSourceOverrideTarget cannot be changed",
            "0x00FF: POST in progress",
        ],
    },
];

fn site_of(dialect: Dialect, faults: &[Fault], post_time: Duration) -> Site {
    Site::with(|config| {
        config.faults = faults.iter().copied().collect();
        config.post_time = post_time;
        config.generation = match dialect {
            Dialect::Redfish => Generation::Ilo5,
            Dialect::Rest => Generation::Ilo4Rest,
            Dialect::Ribcl => Generation::Ilo4Ribcl,
        };
        if dialect == Dialect::Rest {
            config.faults.insert(Fault::NoRedfish);
        }
    })
}

async fn failed(site: &Site, call: Call) -> Error {
    let wrong = IloOptions {
        password: Secret::new(format!("not {PASSWORD}")),
        ..site.options()
    };
    let ilo = match call {
        Call::Connect => return Ilo::connect(site.options()).await.unwrap_err(),
        Call::ConnectWithWrongPassword => return Ilo::connect(wrong).await.unwrap_err(),
        _ => site.connect().await,
    };
    match call {
        Call::Connect | Call::ConnectWithWrongPassword => unreachable!("it returned"),
        Call::Attach => {
            let url = site.image("a.iso", pattern(4096, 1));
            let attached = ilo.attach_vmedia(Device::Cdrom, &url, TIMEOUT).await;
            return attached.unwrap_err();
        }
        Call::PowerOn | Call::BootOnce => {}
        Call::BootOnceInPost => {
            // POST has begun; when power is shown depends on the dialect.
            drop(ilo.set_power(PowerTarget::On, Duration::ZERO).await);
        }
        Call::Reset => {
            ilo.set_power(PowerTarget::On, TIMEOUT).await.unwrap();
            // Without the time to see it happen, and with an old state to be seen for a while.
            let other = site.connect().await;
            let off = other.set_power(PowerTarget::ForceOff, Duration::ZERO).await;
            assert_eq!(off.unwrap_err().kind(), Kind::Timeout);
        }
    }
    let done = match call {
        Call::PowerOn => ilo.set_power(PowerTarget::On, TIMEOUT).await.map(drop),
        // Later reads would show that it is off.
        Call::Reset => ilo
            .set_power(PowerTarget::Reset, Duration::ZERO)
            .await
            .map(drop),
        _ => ilo
            .set_one_time_boot(BootDevice::Cdrom, SHORT)
            .await
            .map(drop),
    };
    done.unwrap_err()
}

#[tokio::test]
async fn every_class_is_told_in_every_dialect() {
    for case in CASES {
        for (dialect, said) in DIALECTS.into_iter().zip(case.said) {
            if said.is_empty() {
                continue;
            }
            let post_time = match case.call {
                Call::BootOnceInPost => Duration::from_secs(600),
                _ => Duration::from_millis(80),
            };
            let site = site_of(dialect, case.faults, post_time);
            let error = failed(&site, case.call).await;
            let what = format!("{} in {dialect:?}: {error:?}", case.blame);
            assert_eq!(error.kind(), case.kind, "{what}");
            assert_eq!(error.is_retryable(), case.is_retryable, "{what}");
            assert!(error.message().starts_with(said), "{what}");
            let (id, _) = said.split_once(": ").unwrap();
            assert_eq!(error.details()["message_id"], id, "{what}");
            assert!(error.advice().is_some(), "{what}");
            assert!(error.operation().starts_with("ilo."), "{what}");
            assert_eq!(format!("https://{}", error.on()), site.base_url());
            assert_clean(&error);
        }
    }
}

#[tokio::test]
async fn a_busy_drive_is_waited_for() {
    for dialect in DIALECTS {
        let site = site_of(dialect, &[Fault::InsertBusy], Duration::from_millis(80));
        let ilo = site.connect().await;
        let url = site.image("a.iso", pattern(4096, 1));
        let drive = ilo.attach_vmedia(Device::Cdrom, &url, TIMEOUT).await;
        assert!(drive.unwrap().inserted, "{dialect:?}");
        ilo.close().await.unwrap();
    }
}

#[tokio::test]
async fn an_ilo_that_went_away_is_unreachable() {
    for dialect in DIALECTS {
        let site = site_of(dialect, &[], Duration::from_millis(80));
        let ilo = site.connect().await;
        drop(site);
        let error = ilo.power_state().await.unwrap_err();
        let is_retryable = error.is_retryable();
        assert_eq!((error.kind(), is_retryable), (Kind::Unreachable, true));
        assert!(error.advice().is_some(), "{dialect:?}: {error:?}");
        assert_clean(&error);
    }
}
