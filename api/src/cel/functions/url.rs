//! URLs, as Kubernetes' library for them sees them.

use std::sync::Arc;

use super::super::value::{Answer, Fault, Key, Value};
use super::{Cost, ONE, Opaque, Row, opaque, text};

/// A URL, in its parts.
#[derive(Debug)]
pub struct Url {
    pub(super) text: Box<str>,
    scheme: String,
    host: String,
    path: String,
    query: String,
}

const LETTERS: Cost = Cost::Letters { of: 0, times: 1.0 };

pub(super) const ROWS: &[Row] = &[
    ("url(string) URL", LETTERS, |a| match Url::parse(text(&a[0])?) {
        Ok(url) => Ok(Value::Opaque(Opaque::Url(Arc::new(url)))),
        Err(fault) => Fault::other(format!("URL parse error during conversion from string: {fault}")),
    }),
    ("isURL(string) bool", ONE, |a| Ok(Value::Bool(Url::parse(text(&a[0])?).is_ok()))),
    ("URL.getScheme() string", ONE, |a| part(a, |url| url.scheme.clone())),
    ("URL.getHost() string", ONE, |a| part(a, |url| url.host.clone())),
    ("URL.getHostname() string", ONE, |a| part(a, |url| split_port(&url.host).0.to_owned())),
    ("URL.getPort() string", ONE, |a| part(a, |url| split_port(&url.host).1.to_owned())),
    ("URL.getEscapedPath() string", ONE, |a| part(a, |url| escaped(&url.path))),
    ("URL.getQuery() map<string, list<string>>", ONE, |a| Ok(query(&url(&a[0])?.query))),
];

fn url<'v>(value: &'v Value<'_>) -> Result<&'v Url, Fault> {
    match opaque(value)? {
        Opaque::Url(url) => Ok(url),
        _ => Err(Fault::NoOverload),
    }
}

fn part<'a>(a: &[Value<'a>], part: fn(&Url) -> String) -> Answer<'a> {
    Ok(Value::text(part(url(&a[0])?)))
}

// === impl Url ===

impl Url {
    /// Reads an absolute URI or an absolute path; the fault is in the words of Go.
    pub(super) fn parse(text: &str) -> Result<Url, String> {
        let fault = |why: &str| Err(format!("parse {text:?}: {why}"));
        if text.is_empty() {
            return fault("empty url");
        }
        if text.chars().any(char::is_control) {
            return fault("net/url: invalid control character in URL");
        }
        let without_fragment = text.split('#').next().unwrap_or_default();
        let (scheme, rest) = match split_scheme(without_fragment) {
            Ok(split) => split,
            Err(why) => return fault(why),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let relative = !rest.starts_with('/');
        if relative && (scheme.is_empty() || rest.is_empty()) {
            return fault("invalid URI for request");
        }
        let (host, path) = match rest.strip_prefix("//").filter(|_| !scheme.is_empty()) {
            Some(rest) => {
                let end = rest.find('/').unwrap_or(rest.len());
                let authority = &rest[..end];
                let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
                (host.to_owned(), &rest[end..])
            }
            None => (String::new(), rest),
        };
        if let Err(why) = check_host(&host) {
            return fault(&why);
        }
        if let Some(at) = bad_escape(path) {
            return fault(&format!(
                "invalid URL escape {:?}",
                path[at..].chars().take(3).collect::<String>()
            ));
        }
        Ok(Url {
            text: text.into(),
            scheme: scheme.to_ascii_lowercase(),
            host,
            path: path.into(),
            query: query.into(),
        })
    }
}

fn split_scheme(text: &str) -> Result<(&str, &str), &'static str> {
    for (at, letter) in text.char_indices() {
        match letter {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme"),
            ':' => return Ok((&text[..at], &text[at + 1..])),
            _ => return Ok(("", text)),
        }
    }
    Ok(("", text))
}

fn check_host(host: &str) -> Result<(), String> {
    let after = match host.strip_prefix('[') {
        Some(rest) => match rest.rfind(']') {
            Some(end) => &rest[end + 1..],
            None => return Err("missing ']' in host".to_owned()),
        },
        None => host.find(':').map_or("", |at| &host[at..]),
    };
    let is_port = after.is_empty()
        || after.strip_prefix(':').is_some_and(|port| port.bytes().all(|digit| digit.is_ascii_digit()));
    if !is_port {
        return Err(format!("invalid port {after:?} after host"));
    }
    match host.chars().find(|letter| " <>\"{}|\\^`".contains(*letter)) {
        Some(letter) => Err(format!("invalid character {:?} in host name", letter.to_string())),
        None => Ok(()),
    }
}

fn bad_escape(path: &str) -> Option<usize> {
    path.match_indices('%').map(|(at, _)| at).find(|at| {
        let digits = path.as_bytes().get(at + 1..at + 3);
        !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// Host and port; an IPv6 address without its brackets.
fn split_port(host: &str) -> (&str, &str) {
    if let Some(rest) = host.strip_prefix('[') {
        let (address, after) = rest.rsplit_once(']').unwrap_or((rest, ""));
        return (address, after.strip_prefix(':').unwrap_or_default());
    }
    host.split_once(':').unwrap_or((host, ""))
}

/// A path with what may not stand in it written as `%20`.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@%!'()*[]".contains(&byte);
        match plain {
            true => out.push(byte as char),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn query<'a>(text: &str) -> Value<'a> {
    let mut found: std::collections::BTreeMap<Key, Vec<Value<'a>>> = Default::default();
    for pair in text.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(name), Some(value)) = (unescaped(name), unescaped(value)) else { continue };
        found.entry(Key::String(name.into())).or_default().push(Value::text(value));
    }
    Value::map(found.into_iter().map(|(name, values)| (name, Value::list(values))).collect())
}

fn unescaped(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || (bytes.next()? as char).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}
