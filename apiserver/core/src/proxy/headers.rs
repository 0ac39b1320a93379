//! The headers of a request and its answer that are passed on: what belongs to one connection, or to the server alone, is
//! taken out; where the answer leads is seen from outside.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::connect::{Backend, Proxied};

/// What belongs to one connection and not to the message.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// The headers of the request to the backend, with `Connection: Upgrade` when the client asks for an upgrade. Whose
/// request it is, and the credentials that prove it, are not for the backend.
pub fn of_request(headers: &HeaderMap, proxied: &Proxied) -> HeaderMap {
    let mut out = without_hops(headers);
    // The length is that of the body that is sent; the server has answered the expectation.
    for name in [header::AUTHORIZATION, header::CONTENT_LENGTH, header::EXPECT] {
        out.remove(name);
    }
    let impersonation: Vec<HeaderName> =
        out.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in impersonation {
        out.remove(name);
    }
    if let Some(upgrade) = upgrade(headers) {
        out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        out.insert(header::UPGRADE, upgrade.clone());
    }
    let path = proxied.target.split_once('?').map_or(&*proxied.target, |(path, _)| path);
    if let Ok(uri) = HeaderValue::from_str(&format!("{}{path}", proxied.prefix)) {
        out.insert(FORWARDED_URI, uri);
    }
    out
}

/// The headers of the answer to the client, without those of an upgrade.
pub fn of_answer(headers: &HeaderMap, proxied: &Proxied, host: &str) -> HeaderMap {
    let mut out = without_hops(headers);
    // Who may read the API from other origins is not for a backend to say.
    let foreign: Vec<HeaderName> =
        out.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
    for name in foreign {
        out.remove(name);
    }
    let location = out.get(header::LOCATION).and_then(|location| location.to_str().ok());
    if let Some(seen) = location.map(|location| seen_from_outside(location, proxied, host))
        && let Ok(seen) = HeaderValue::from_str(&seen)
    {
        out.insert(header::LOCATION, seen);
    }
    out
}

/// The protocol that a client asks to change to.
pub fn upgrade(headers: &HeaderMap) -> Option<&HeaderValue> {
    connection_options(headers)
        .any(|option| option.eq_ignore_ascii_case("upgrade"))
        .then(|| headers.get(header::UPGRADE))
        .flatten()
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn without_hops(headers: &HeaderMap) -> HeaderMap {
    let mut out = headers.clone();
    for option in connection_options(headers) {
        out.remove(option);
    }
    for name in HOP_BY_HOP {
        out.remove(name);
    }
    out
}

/// A `Location` of the backend as the client must ask for it. Other hosts and relative references stay as they are.
fn seen_from_outside(location: &str, proxied: &Proxied, host: &str) -> String {
    let authority_at = match location.split_once("://") {
        Some((scheme, _)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => scheme.len() + 3,
        _ if location.starts_with("//") => 2,
        _ => 0,
    };
    let (start, rest) = location.split_at(authority_at);
    let path_at = if start.is_empty() { 0 } else { rest.find(['/', '?', '#']).unwrap_or(rest.len()) };
    let (authority, path) = rest.split_at(path_at);
    let own = match &proxied.backend {
        Backend::Address { ip, port, .. } => {
            std::net::SocketAddr::new(*ip, *port).to_string() == authority || ip.to_string() == authority
        }
        Backend::Agent => false,
    };
    let kept = match (authority.is_empty(), own, authority == host) {
        (true, ..) | (_, true, _) => "",
        (.., true) => &location[..authority_at + path_at],
        _ => return location.to_owned(),
    };
    let absolute = path.starts_with('/') || (path.is_empty() && !authority.is_empty());
    if !absolute {
        return location.to_owned();
    }
    match path.strip_prefix(&*proxied.prefix) {
        Some(rest) if rest.is_empty() || rest.starts_with(['/', '?', '#']) => format!("{kept}{path}"),
        _ => format!("{kept}{}{path}", proxied.prefix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxied() -> Proxied {
        Proxied {
            backend: Backend::Address { tls: false, ip: [10, 0, 0, 1].into(), port: 8080 },
            target: "/a/b?c=d".into(),
            prefix: "/api/v1/namespaces/n/pods/p/proxy".into(),
        }
    }

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn credentials_and_hops_stay_here() {
        let sent = map(&[
            ("authorization", "Bearer x"),
            ("impersonate-user", "eve"),
            ("impersonate-extra-a", "b"),
            ("connection", "close, x-private"),
            ("x-private", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("content-length", "7"),
            ("upgrade", "websocket"),
            ("host", "server:6443"),
            ("cookie", "a=b"),
        ]);
        let passed = of_request(&sent, &proxied());
        let expected = map(&[
            ("host", "server:6443"),
            ("cookie", "a=b"),
            ("x-forwarded-uri", "/api/v1/namespaces/n/pods/p/proxy/a/b"),
        ]);
        assert_eq!(passed, expected);
    }

    #[test]
    fn an_upgrade_is_asked_for_again() {
        let sent = map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        let passed = of_request(&sent, &proxied());
        assert_eq!(
            (&passed["connection"], &passed["upgrade"]),
            (&"Upgrade".parse().expect("a value"), &sent["upgrade"])
        );
        assert!(upgrade(&map(&[("upgrade", "websocket")])).is_none());
    }

    #[test]
    fn answers_lose_what_is_not_the_backends_to_say() {
        let said = map(&[
            ("access-control-allow-origin", "*"),
            ("connection", "keep-alive"),
            ("content-length", "3"),
            ("location", "/login"),
        ]);
        let passed = of_answer(&said, &proxied(), "server:6443");
        let expected =
            map(&[("content-length", "3"), ("location", "/api/v1/namespaces/n/pods/p/proxy/login")]);
        assert_eq!(passed, expected);
    }

    #[track_caller]
    fn check(location: &str, expected: &str) {
        assert_eq!(seen_from_outside(location, &proxied(), "server:6443"), expected, "{location}");
    }

    #[test]
    fn locations_lead_through_the_server() {
        let prefix = proxied().prefix;
        check("/x?y#z", &format!("{prefix}/x?y#z"));
        check("/", &format!("{prefix}/"));
        check("http://10.0.0.1:8080/x/", &format!("{prefix}/x/"));
        check("http://10.0.0.1:8080", &prefix);
        check("//10.0.0.1:8080/x", &format!("{prefix}/x"));
        check("https://server:6443/x", &format!("https://server:6443{prefix}/x"));
        check(&format!("{prefix}/x"), &format!("{prefix}/x"));
        check(&format!("{prefix}-other"), &format!("{prefix}{prefix}-other"));
        for elsewhere in [
            "x/y",
            "../x",
            "?a=/b",
            "https://example.com/x",
            "http://10.0.0.1:81/x",
            "//other/x",
            "x?u=http://10.0.0.1:8080/",
        ] {
            check(elsewhere, elsewhere);
        }
    }
}
