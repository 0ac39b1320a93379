//! The formats of text that schemas of custom resources may demand.

use base64::Engine as _;

use crate::{name, time};

/// Whether a text has a format. What is not known here is a remark for people: every text has it.
pub(crate) fn has(format: &str, text: &str) -> bool {
    match format.replace('-', "").as_str() {
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "cidr" => is_network(text),
        "date" => text.parse::<jiff::civil::Date>().is_ok() && text.len() == "2006-01-02".len(),
        "datetime" => time::parse(text).is_ok(),
        "duration" => is_duration(text),
        "email" => is_mail_address(text),
        "hostname" => name::dns1123_subdomain(&text.to_ascii_lowercase()).is_empty(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "mac" => is_hardware_address(text),
        "uri" => is_uri(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some('3')),
        "uuid4" => is_uuid(text, Some('4')),
        "uuid5" => is_uuid(text, Some('5')),
        "hexcolor" => {
            let digits = text.strip_prefix('#').unwrap_or(text);
            matches!(digits.len(), 3 | 6) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        }
        _ => true,
    }
}

fn is_network(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else { return false };
    let most = match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    prefix.parse::<u8>().is_ok_and(|prefix| prefix <= most)
}

/// Go's durations: `1h30m`, `-1.5s`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.trim_start_matches(['-', '+']);
    if rest == "0" {
        return true;
    }
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
        let number = &rest[..rest.len() - digits.len()];
        if number.is_empty() || number.parse::<f64>().is_err() {
            return false;
        }
        let unit = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"].iter().find_map(|unit| {
            let after = digits.strip_prefix(unit)?;
            let ends = after.is_empty() || after.starts_with(|letter: char| letter.is_ascii_digit());
            ends.then_some(after)
        });
        let Some(after) = unit else { return false };
        rest = after;
        parts += 1;
    }
    parts > 0
}

fn is_mail_address(text: &str) -> bool {
    let Some((user, host)) = text.rsplit_once('@') else { return false };
    let plain = |part: &str| !part.is_empty() && !part.contains(|letter: char| letter.is_whitespace());
    plain(user) && plain(host) && !user.contains('@')
}

fn is_hardware_address(text: &str) -> bool {
    let separator = if text.contains('-') { '-' } else { ':' };
    let parts: Vec<&str> = text.split(separator).collect();
    matches!(parts.len(), 6 | 8 | 20)
        && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// What Go takes for the URI of a request: a path from the root, or a scheme and what it is about.
fn is_uri(text: &str) -> bool {
    if text.is_empty() || text.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let of_scheme = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '+' | '-' | '.');
    scheme.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && scheme.chars().all(of_scheme)
        && !rest.is_empty()
}

fn is_uuid(text: &str, version: Option<char>) -> bool {
    let digits: Vec<char> = text.chars().filter(|letter| *letter != '-').collect();
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    let grouped = groups == [8, 4, 4, 4, 12] || groups == [32];
    grouped
        && digits.iter().all(char::is_ascii_hexdigit)
        && version.is_none_or(|version| digits.get(12) == Some(&version))
}
