//! What an iLO's messages mean.
//!
//! iLO 5 and newer answer with a registry name, a version, a key and arguments
//! (`iLO.2.15.UnableToModifyDuringSystemPOST`); the text is in a registry that has to be fetched.
//! Only the key decides here: versions differ between firmware releases.

use crate::ilo::failure::{Class, Message};
use crate::ilo::mask;
use serde_json::{Value, json};

/// Longest text that is kept of an answer, and most arguments.
const MAX_CHARS: usize = 1000;
const MAX_ARGS: usize = 16;

/// Key, class, and the text of the registries of iLO 5 3.11.
const MESSAGES: &[(&str, Class, &str)] = &[
    (
        "Success",
        Class::Success,
        "The operation completed successfully.",
    ),
    (
        "Created",
        Class::Success,
        "The resource has been created successfully.",
    ),
    (
        "SystemResetRequired",
        Class::Success,
        "One or more properties were changed and will not take effect until system is reset.",
    ),
    (
        "OperationAvailableAfterSystemPOST",
        Class::Success,
        "Property %1 will be settable after the System BIOS completes POST.",
    ),
    (
        "OperationWillCompleteAfterSystemPOST",
        Class::Success,
        "The value for property %1 will be changed after the System BIOS completes POST.",
    ),
    (
        "ConditionalSuccess",
        Class::Success,
        "The property %1 was successfully changed to %2, but the change may be reverted upon system reset.",
    ),
    (
        "ResetRequired",
        Class::Success,
        "One or more properties were changed, but these changes will not take effect until the management processor is reset.",
    ),
    (
        "SuccessFeedback",
        Class::Success,
        "The operation completed successfully.",
    ),
    (
        "TaskCreated",
        Class::Success,
        "A task was created in response to the operation and is accessible at %1.",
    ),
    (
        "NoValidSession",
        Class::Login,
        "There is no valid session established with the implementation.",
    ),
    (
        "AuthenticationTokenRequired",
        Class::Login,
        "The request could not be performed because an authentication token was not provided.",
    ),
    (
        "UnauthorizedLoginAttempt",
        Class::Login,
        "The login was not successful, because the supplied credentials could not be authorized.",
    ),
    (
        "LoginAttemptDelayed",
        Class::Login,
        "The login was not successful, so the service enforces a delay before another login is allowed.",
    ),
    (
        "LoginAttemptDelayedSeconds",
        Class::Login,
        "The login was not successful, so the service enforces a %1 second delay before another login is allowed.",
    ),
    (
        "InsufficientPrivilege",
        Class::Permission,
        "The account or credentials associated with the current session are not authorized to perform the requested operation.",
    ),
    (
        "SessionLimitExceeded",
        Class::SessionLimit,
        "The session establishment did not complete because the number of simultaneous sessions exceeded the maximum number allowed by the implementation.",
    ),
    (
        "LicenseKeyRequired",
        Class::Unlicensed,
        "A license key is required to use this operation or feature.",
    ),
    (
        "InvalidLicenseKey",
        Class::Unlicensed,
        "The license key is not valid.",
    ),
    (
        "LicenseKeyNotSupported",
        Class::Unlicensed,
        "The supplied license key is not supported on this system.",
    ),
    (
        "LicenseKeyDenied",
        Class::Unlicensed,
        "The license activation key cannot be installed.  %1",
    ),
    (
        "OneTimePasscodeSent",
        Class::Unsupported,
        "A one-time passcode has been sent to: %1  Supply the passcode as the Token in the request to create a Session.",
    ),
    (
        "UnsupportedOperation",
        Class::Unsupported,
        "This operation is not supported by RIS for the current system.",
    ),
    (
        "UnsupportedOperationInLegacyBootMode",
        Class::Unsupported,
        " This operation is not supported when the system Boot Mode is set to Legacy BIOS.",
    ),
    (
        "UnsupportedOperationInSystemBIOS",
        Class::Unsupported,
        "This operation is not supported by the current version of the system BIOS.",
    ),
    (
        "UnsupportedSecurityState",
        Class::Unsupported,
        "The operation was not successful due to the current security state of the management processor.",
    ),
    (
        "ActionNotSupported",
        Class::Unsupported,
        "The action %1 is not supported by the resource.",
    ),
    (
        "PropertyUnknown",
        Class::Unsupported,
        "The property %1 is not valid for this resource.",
    ),
    (
        "PropertyNotWritableOrUnknown",
        Class::Unsupported,
        "The property %1 is a read-only property and cannot be assigned a value, or not valid for this resource.",
    ),
    (
        "PropertyNotWritable",
        Class::Unsupported,
        "The property %1 is a read-only property and cannot be assigned a value.",
    ),
    (
        "PropertyNotSupported",
        Class::Unsupported,
        "The property %1 is not supported.",
    ),
    (
        "VirtualMediaIsDisabled",
        Class::Unsupported,
        "Virtual Media has been disabled.",
    ),
    (
        "ResourceMissingAtURI",
        Class::NotFound,
        "The resource at the URI %1 was not found.",
    ),
    (
        "ResourceNotFound",
        Class::NotFound,
        "The requested resource of type %1 named %2 was not found.",
    ),
    ("InvalidURI", Class::NotFound, "The URI %1 was not found."),
    (
        "InvalidOperationForSystemState",
        Class::WrongState,
        "The operation was not successful due to the current power state.",
    ),
    (
        "SystemPowerOffRequired",
        Class::WrongState,
        "To perform this operation, power off the system.",
    ),
    (
        "SystemPowerStateChangeFailed",
        Class::WrongState,
        "System power state change failed",
    ),
    (
        "UnableToModifyDuringSystemPOST",
        Class::Busy,
        "The value for property %1 cannot be changed while the computer system BIOS is in POST.",
    ),
    (
        "DeviceIsBusy",
        Class::Busy,
        "Device communication response was busy.",
    ),
    (
        "ResetInProgress",
        Class::Busy,
        "A management processor reset is in progress.",
    ),
    (
        "ServiceTemporarilyUnavailable",
        Class::Busy,
        "The service is temporarily unavailable.  Retry in %1 seconds.",
    ),
    (
        "ServiceShuttingDown",
        Class::Busy,
        "The operation did not complete because the service is shutting down and cannot take incoming requests.",
    ),
    (
        "ResourceNotReadyRetry",
        Class::Busy,
        "The resource is present but is not ready to perform operations.  The resource will be ready in %1 seconds.",
    ),
    (
        "ResourceTemporarilyUnavailable",
        Class::Busy,
        "The resource is temporarily unavailable because the firmware is being flashed.",
    ),
    (
        "ResourceInUse",
        Class::Busy,
        "The change to the resource did not complete because the resource is in use or in transition.",
    ),
    (
        "MaxVirtualMediaConnectionEstablished",
        Class::MediaPresent,
        "No more Virtual Media connections are available, because the maximum number of connections are already established.",
    ),
    (
        "UnableToModifyAfterVirtualMediaInsert",
        Class::MediaPresent,
        "The value for property %1 cannot be changed after virual media image is inserted.",
    ),
    (
        "NoVirtualMediaConnectionAvailable",
        Class::NoMedia,
        "No Virtual Media connections exist to perform the operation.",
    ),
    (
        "NoScriptedVirtualMediaConnectionAvailable",
        Class::NoMedia,
        "No scripted virtual media connections exist to perform the operation.",
    ),
    (
        "PropertyValueNotInList",
        Class::BadRequest,
        "The value %1 for the property %2 is not valid.",
    ),
    (
        "PropertyValueTypeError",
        Class::BadRequest,
        "The value %1 for the property %2 is the incorrect property type.",
    ),
    (
        "PropertyValueFormatError",
        Class::BadRequest,
        "The value %1 for the property %2 is in a format that is not supported by the property.",
    ),
    (
        "PropertyValueBadParam",
        Class::BadRequest,
        "The property value is not valid. %1.",
    ),
    (
        "PropertyMissing",
        Class::BadRequest,
        "The property %1 is a required property and must be included in the request.",
    ),
    (
        "ActionParameterMissing",
        Class::BadRequest,
        "The action %1 requires that the parameter %2 be present in the request body.",
    ),
    (
        "ActionParameterUnknown",
        Class::BadRequest,
        "The action %1 was submitted with the invalid parameter %2.",
    ),
    (
        "ActionParameterNotSupported",
        Class::BadRequest,
        "The parameter %1 for the action %2 is not supported on the target resource.",
    ),
    (
        "ActionParameterValueFormatError",
        Class::BadRequest,
        "The value %1 for the parameter %2 in the action %3 is in a format that is not supported by the parameter.",
    ),
    (
        "ActionParameterValueTypeError",
        Class::BadRequest,
        "The value %1 for the parameter %2 in the action %3 is the incorrect parameter type.",
    ),
    (
        "StringValueTooLong",
        Class::BadRequest,
        "The string %1 exceeds the length limit %2.",
    ),
    (
        "PropertyValueExceedsMaxLength",
        Class::BadRequest,
        "The value %1 for the property %2 exceeds the maximum length of %3.",
    ),
    (
        "MalformedJSON",
        Class::BadRequest,
        "The request body submitted is malformed JSON and cannot be parsed by the receiving service.",
    ),
    (
        "UnrecognizedRequestBody",
        Class::BadRequest,
        "The service detected a request body with malformed JSON.",
    ),
];

impl Message {
    /// The first message of an answer that is not about success, else the first one, else the
    /// error itself: the standard asks no more of it than a code and a text.
    pub(in crate::ilo) fn of(body: &Value) -> Option<Self> {
        let messages: Vec<Self> = infos(body).filter_map(Self::parse).collect();
        let failed = |m: &&Self| m.class != Some(Class::Success);
        let chosen = messages.iter().find(failed).or_else(|| messages.first());
        let error = || Self::parse(&json!({ "MessageId": body.pointer("/error/code")? }));
        let mut message = chosen.cloned().or_else(error)?;
        let text = body.pointer("/error/message").and_then(Value::as_str);
        // An iLO's text points to the messages that were just read.
        let own = text.filter(|text| !text.contains("ExtendedInfo"));
        if let (true, Some(own)) = (message.text.is_empty(), own) {
            message.text = clean(own);
        }
        Some(message)
    }

    fn parse(info: &Value) -> Option<Self> {
        let sent = |names: &[&str]| names.iter().find_map(|n| info.get(n)?.as_str());
        let id = clean(sent(&["MessageId", "MessageID"])?);
        let args = info.get("MessageArgs").and_then(Value::as_array);
        let args: Vec<String> = args
            .into_iter()
            .flatten()
            .take(MAX_ARGS)
            .map(|arg| clean(&arg.as_str().map_or_else(|| arg.to_string(), str::to_owned)))
            .collect();
        let known = known(key(&id));
        let text = match sent(&["Message"]) {
            Some(own) if !own.is_empty() => clean(own),
            _ => fill(known.map_or("", |(_, _, text)| text), &args),
        };
        let class = known.map(|(_, class, _)| *class);
        Some(Self {
            id,
            args,
            text,
            class,
        })
    }
}

/// A text of the iLO's without secrets, and of a length that somebody reads.
fn clean(text: &str) -> String {
    let masked = mask::text(text);
    match masked.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", masked.get(..end).unwrap_or("")),
        None => masked,
    }
}

fn key(id: &str) -> &str {
    id.rsplit('.').next().unwrap_or(id)
}

fn known(key: &str) -> Option<&'static (&'static str, Class, &'static str)> {
    MESSAGES.iter().find(|(name, ..)| *name == key)
}

/// The message objects in every place where firmware puts them.
fn infos(body: &Value) -> impl Iterator<Item = &Value> {
    let places = [
        "/error/@Message.ExtendedInfo",
        "/@Message.ExtendedInfo",
        "/Messages",
    ];
    let arrays = places
        .into_iter()
        .filter_map(|place| body.pointer(place)?.as_array());
    arrays.flatten()
}

/// Puts the arguments in the places of `%1`, `%2`, …; what stands in an argument stays as it is.
fn fill(text: &str, args: &[String]) -> String {
    let (mut filled, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('%') {
        filled.push_str(before);
        let number = after.chars().next().and_then(|digit| digit.to_digit(10));
        let arg = number.and_then(|n| args.get(usize::try_from(n).ok()?.checked_sub(1)?));
        match arg {
            Some(arg) => filled.push_str(arg),
            None => filled.push('%'),
        }
        rest = match arg {
            Some(_) => after.get(1..).unwrap_or(""),
            None => after,
        };
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_are_those_of_the_captured_registries() {
        let [base, common, own] = ["Base", "HpeCommon", "iLO"]
            .map(|registry| captured("ilo5-3.11-dl360gen10plus", registry));
        for (key, _, text) in MESSAGES {
            let mut captured = [&own, &base, &common]
                .into_iter()
                .filter_map(|r| r["Messages"][key]["Message"].as_str());
            assert_eq!(captured.next(), Some(*text), "{key}");
        }
        // Newer iLOs have the same keys with the same texts.
        for folder in ["ilo6-1.66-dl380agen11", "ilo7-1.14-dl360gen12"] {
            let [newer_common, newer_own] = ["HpeCommon", "iLO"].map(|r| captured(folder, r));
            for (older, newer) in [(&common, newer_common), (&own, newer_own)] {
                for (key, ..) in MESSAGES {
                    let text = |registry: &Value| registry["Messages"][key]["Message"].clone();
                    assert_eq!(text(older), text(&newer), "{key} {folder}");
                }
            }
        }
    }

    fn captured(folder: &str, registry: &str) -> Value {
        let folder = format!("tests/data/ilo/redfish/{folder}");
        let file = format!("{folder}/RegistryStore_registries_en_{registry}.json.json");
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(root.join(file)).unwrap()).unwrap()
    }

    #[test]
    fn arguments_are_put_into_the_text_as_they_are() {
        let args = ["%2 %3".to_owned(), "b".to_owned()];
        assert_eq!(
            fill("%1 and %2, %3 at 5 %", &args),
            "%2 %3 and b, %3 at 5 %"
        );
        let body = json!({"error": {"@Message.ExtendedInfo": [{
            "MessageId": "iLO.2.19.PropertyValueBadParam", "MessageArgs": ["Invalid length"],
        }]}});
        assert_eq!(
            Message::of(&body).unwrap().to_string(),
            "iLO.2.19.PropertyValueBadParam: The property value is not valid. Invalid length"
        );
    }

    #[test]
    fn what_nobody_would_read_is_cut() {
        let long = "%1 %2 %3".repeat(100_000);
        let body = json!({"error": {"@Message.ExtendedInfo": [{
            "MessageId": "Base.1.18.QueryParameterOutOfRange", "Message": long,
            "MessageArgs": vec![&long; 40],
        }]}});
        let message = Message::of(&body).unwrap();
        assert_eq!(message.text.chars().count(), MAX_CHARS + 1);
        assert_eq!(message.args.len(), MAX_ARGS);
        assert!(
            message
                .args
                .iter()
                .all(|arg| arg.chars().count() == MAX_CHARS + 1)
        );
    }

    #[test]
    fn failure_is_found_behind_success() {
        let body = json!({"error": {"@Message.ExtendedInfo": [
            {"MessageId": "Base.1.4.Success"},
            {"MessageId": "iLO.2.14.DeviceIsBusy", "Message": "own words"},
        ]}});
        let message = Message::of(&body).unwrap();
        assert_eq!(message.class, Some(Class::Busy));
        assert_eq!(message.text, "own words");
    }

    #[test]
    fn the_standards_own_text_is_read_where_there_is_no_other() {
        let general = "Base.1.0.GeneralError";
        let bodies = [
            json!({"error": {"code": general, "message": "no such image"}}),
            json!({"error": {"code": general, "message": "no such image",
                "@Message.ExtendedInfo": [{"MessageId": general}]}}),
        ];
        for body in bodies {
            let message = Message::of(&body).unwrap();
            assert_eq!(message.to_string(), "Base.1.0.GeneralError: no such image");
            assert_eq!(message.class, None);
        }
        let of_ilo = json!({"error": {"code": "iLO.0.10.ExtendedInfo",
            "message": "See @Message.ExtendedInfo for more information.",
            "@Message.ExtendedInfo": [{"MessageId": "iLO.9.9.Novelty"}]}});
        assert_eq!(Message::of(&of_ilo).unwrap().to_string(), "iLO.9.9.Novelty");
        assert_eq!(Message::of(&json!({"error": {"message": "no code"}})), None);
    }

    #[test]
    fn a_url_that_comes_back_is_masked() {
        let body = json!({"error": {"@Message.ExtendedInfo": [{
            "MessageId": "Base.1.4.PropertyValueFormatError",
            "MessageArgs": ["https://h/c/o?temp_url_sig=5ec4e7", "Image"],
        }]}});
        let message = Message::of(&body).unwrap();
        assert!(!format!("{message} {message:?}").contains("5ec4e7"));
        assert!(message.to_string().contains("https://h/c/o?***"));
    }

    #[test]
    fn unknown_messages_keep_their_name() {
        let body = json!({"Messages": [{"MessageID": "iLO.9.9.Novelty", "MessageArgs": [3]}]});
        let message = Message::of(&body).unwrap();
        assert_eq!(
            (message.to_string().as_str(), message.class),
            ("iLO.9.9.Novelty", None)
        );
        assert_eq!(message.args, ["3"]);
    }

    proptest! {
        #[test]
        fn never_panics(id in ".{0,40}", args in proptest::collection::vec(".{0,10}", 0..12)) {
            let body = json!({"error": {"@Message.ExtendedInfo": [
                {"MessageId": id, "MessageArgs": args}
            ]}});
            drop(Message::of(&body).map(|m| (m.class, m.to_string())));
        }
    }
}
