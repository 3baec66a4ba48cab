//! Where traces go, by the standard variables of OpenTelemetry.

use http::{HeaderName, HeaderValue, Uri};

const DISABLED: &str = "OTEL_SDK_DISABLED";
const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const TRACES_PROTOCOL: &str = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const TRACES_HEADERS: &str = "OTEL_EXPORTER_OTLP_TRACES_HEADERS";
const SERVICE: &str = "OTEL_SERVICE_NAME";
const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
/// What this process says of itself.
const SERVICE_ATTRIBUTE: &str = "service.name";
const VERSION_ATTRIBUTE: &str = "service.version";

/// A collector, and as whom this process speaks to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSettings {
    /// `http://host:port/v1/traces`.
    pub(super) endpoint: Uri,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) service: String,
    /// What else is said of whoever speaks.
    pub(super) attributes: Vec<(String, String)>,
}

impl TraceSettings {
    /// By the variables that `get` knows; none where they name no collector. `service` is the name where none is given.
    ///
    /// The error says in words what is wrong with which variable.
    pub fn from(get: impl Fn(&str) -> Option<String>, service: &str) -> Result<Option<Self>, String> {
        let get = |name: &str| get(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let is_off = get(DISABLED).is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let endpoint = get(TRACES_ENDPOINT)
            .map(|whole| (TRACES_ENDPOINT, whole))
            .or_else(|| get(ENDPOINT).map(|base| (ENDPOINT, format!("{}/v1/traces", base.trim_end_matches('/')))));
        let Some((variable, endpoint)) = endpoint.filter(|_| !is_off) else { return Ok(None) };
        match get(EXPORTER).as_deref() {
            Some("none") => return Ok(None),
            None | Some("otlp") => {}
            Some(other) => return Err(format!("{EXPORTER}={other}: traces go by otlp, or none")),
        }
        if let Some(protocol) = get(TRACES_PROTOCOL).or_else(|| get(PROTOCOL)).filter(|text| text != "http/json") {
            return Err(format!(
                "{PROTOCOL}={protocol}: traces go by http/json, which collectors take at the same port as http/protobuf"
            ));
        }
        let uri: Uri = endpoint.parse().map_err(|error| format!("{variable}={endpoint}: {error}"))?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() {
            return Err(format!(
                "{variable}={endpoint}: write http://host:port of a collector nearby, which speaks TLS to those far away"
            ));
        }
        let headers = get(TRACES_HEADERS).or_else(|| get(HEADERS)).unwrap_or_default();
        let headers = pairs(HEADERS, &headers).map(|pair| header(pair?)).collect::<Result<_, _>>()?;
        let given = get(ATTRIBUTES).unwrap_or_default();
        let mut attributes = pairs(ATTRIBUTES, &given).collect::<Result<Vec<_>, _>>()?;
        // The variable of its own counts before the list; the version is that of the program.
        let named = attributes.iter().rev().find(|(name, _)| name == SERVICE_ATTRIBUTE).map(|(_, value)| value.clone());
        attributes.retain(|(name, _)| name != SERVICE_ATTRIBUTE && name != VERSION_ATTRIBUTE);
        let service = get(SERVICE).or(named).unwrap_or_else(|| service.to_owned());
        Ok(Some(Self { endpoint: uri, headers, service, attributes }))
    }
}

/// `name=value,name=value`, with values in percent-encoding, as the standard writes headers and attributes. The error has no value: it may be
/// a secret.
fn pairs<'a>(variable: &'a str, text: &'a str) -> impl Iterator<Item = Result<(String, String), String>> + 'a {
    text.split(',').filter(|pair| !pair.trim().is_empty()).map(move |pair| {
        let wrong = || format!("{variable}: write name=value,name=value, with values in percent-encoding");
        let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
        let (name, value) = (name.trim(), decoded(value.trim()).ok_or_else(wrong)?);
        if name.is_empty() { Err(wrong()) } else { Ok((name.to_owned(), value)) }
    })
}

/// None of what is no percent-encoding of UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Without the value in the error: it may be a secret.
fn header((name, value): (String, String)) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || format!("{HEADERS}: a name or a value in it is no header's");
    let name = HeaderName::try_from(name).map_err(|_| wrong())?;
    let mut value = HeaderValue::try_from(value).map_err(|_| wrong())?;
    value.set_sensitive(true);
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Option<TraceSettings>, String> {
        let get = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        TraceSettings::from(get, "concord-hub")
    }

    #[test]
    fn nothing_is_sent_where_no_collector_is_named_or_it_is_switched_off() {
        for off in [
            &[][..],
            &[(ENDPOINT, "")],
            &[(ENDPOINT, "http://c:4318"), (DISABLED, "true")],
            &[(ENDPOINT, "http://c:4318"), (EXPORTER, "none")],
            &[(SERVICE, "x")],
        ] {
            assert_eq!(settings(off), Ok(None), "{off:?}");
        }
    }

    #[test]
    fn the_endpoint_of_all_signals_gets_the_path_and_that_of_traces_is_taken_as_it_is() {
        let of_all = settings(&[(ENDPOINT, "http://c:4318/"), (SERVICE, "mine")]).unwrap().unwrap();
        assert_eq!(
            (of_all.endpoint.to_string().as_str(), of_all.service.as_str()),
            ("http://c:4318/v1/traces", "mine")
        );
        let of_traces = settings(&[(ENDPOINT, "http://c:4318"), (TRACES_ENDPOINT, "http://t/x")]).unwrap().unwrap();
        assert_eq!(
            (of_traces.endpoint.to_string().as_str(), of_traces.service.as_str()),
            ("http://t/x", "concord-hub")
        );
    }

    #[test]
    fn headers_and_attributes_are_decoded_and_the_variable_of_the_name_counts_first() {
        let listed = (
            ATTRIBUTES,
            "deployment.environment=%D1%83%D0%B7%D0%B5%D0%BB%20KAZ, service.name=listed,service.version=0",
        );
        let headers = (HEADERS, "authorization=Bearer%20abc%3D");
        let with = settings(&[(ENDPOINT, "http://c"), listed, headers]).unwrap().unwrap();
        assert_eq!(with.attributes, [("deployment.environment".to_owned(), "узел KAZ".to_owned())]);
        assert_eq!((with.service.as_str(), with.headers[0].1.as_bytes()), ("listed", b"Bearer abc=".as_slice()));
        let named = settings(&[(ENDPOINT, "http://c"), listed, (SERVICE, "mine")]).unwrap().unwrap();
        assert_eq!(named.service, "mine");
    }

    #[test]
    fn what_cannot_be_done_is_said_by_the_variables_name_and_no_secret_is() {
        let check = |variables: &[(&str, &str)], words: &str| {
            let error = settings(variables).unwrap_err();
            assert!(error.contains(words) && !error.contains("secret"), "{error}");
        };
        check(&[(ENDPOINT, "https://c:4318")], ENDPOINT);
        check(&[(TRACES_ENDPOINT, "c:4318")], TRACES_ENDPOINT);
        check(&[(ENDPOINT, "http://c"), (PROTOCOL, "grpc")], "http/json");
        check(&[(ENDPOINT, "http://c"), (EXPORTER, "zipkin")], EXPORTER);
        check(&[(ENDPOINT, "http://c"), (HEADERS, "the secret")], HEADERS);
        check(&[(ENDPOINT, "http://c"), (HEADERS, "x=secret%2")], HEADERS);
        check(&[(ENDPOINT, "http://c"), (HEADERS, "x=secret%0A")], HEADERS);
        check(&[(ENDPOINT, "http://c"), (ATTRIBUTES, "=secret")], ATTRIBUTES);
        check(&[(ENDPOINT, "http://c"), (PROTOCOL, "http/protobuf")], "http/json");
        let with =
            settings(&[(ENDPOINT, "http://c"), (HEADERS, "authorization=Bearer secret, x-a=b")]).unwrap().unwrap();
        assert_eq!(with.headers.len(), 2);
        assert!(!format!("{with:?}").contains("secret"), "{with:?}");
    }
}
