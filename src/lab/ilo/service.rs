//! The web server of an iLO: which front answers.

use super::Machine;
use super::fault::Fault;
use super::generation::Web;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, Response, StatusCode};
use std::sync::Arc;

/// Answers every request.
pub(super) async fn serve(State(machine): State<Arc<Machine>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let traits = machine.traits();
    match (&parts.method, parts.uri.path()) {
        (&Method::POST, "/ribcl") if traits.ribcl => machine.ribcl(body).await,
        (&Method::GET, "/xmldata") if !machine.shared.state().has(Fault::NoXmlData) => {
            machine.xml_data(parts.uri.query().unwrap_or_default())
        }
        (_, path) if path.starts_with("/redfish") || path.starts_with("/rest/") => {
            match traits.web {
                Web::None => plain(StatusCode::NOT_FOUND, "text/html", String::new()),
                Web::Rest | Web::Redfish => machine.web(&parts, body).await,
            }
        }
        _ => plain(StatusCode::NOT_FOUND, "text/html", String::new()),
    }
}

impl Machine {
    /// What everybody may know (`/xmldata?item=all`), in the layout of a DL380 Gen9's.
    fn xml_data(&self, query: &str) -> Response<Body> {
        let (config, traits) = (&self.shared.config, self.traits());
        let (serial, number) = (self.serial(), traits.number);
        let uuid = config.uuid.hyphenated().to_string().to_uppercase();
        let text = match query {
            "item=all" | "item=All" => format!(
                "<?xml version=\"1.0\"?>\r\n<RIMP>\r\n<HSI>\r\n<SBSN>{serial}</SBSN>\r\n\
                 <SPN>{}</SPN>\r\n<UUID>{serial}</UUID>\r\n<SP>1</SP>\r\n\
                 <cUUID>{uuid}</cUUID>\r\n\
                 <VIRTUAL>\r\n<STATE>Inactive</STATE>\r\n<VID>\r\n<BSN></BSN>\r\n\
                 <cUUID></cUUID>\r\n\
                 </VID>\r\n</VIRTUAL>\r\n</HSI>\r\n<MP>\r\n<ST>1</ST>\r\n\
                 <PN>Integrated Lights-Out {number} (iLO {number})</PN>\r\n<FWRI>{}</FWRI>\r\n\
                 <SN>ILO{serial}</SN>\r\n\
                 <UUID>ILO{serial}</UUID>\r\n\
                 <IPM>1</IPM>\r\n<SSO>0</SSO>\r\n\
                 <PWRM>3.3</PWRM>\r\n</MP>\r\n</RIMP>\r\n",
                traits.product, traits.firmware
            ),
            "item=CpqKey" => format!(
                "<?xml version=\"1.0\"?>\r\n<PROLIANTKEY>\r\n\
                 <LNAME>{}</LNAME>\r\n</PROLIANTKEY>\r\n",
                self.license_name()
            ),
            _ => String::new(),
        };
        plain(StatusCode::OK, "text/xml", text)
    }
}

fn plain(status: StatusCode, kind: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
