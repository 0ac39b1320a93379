//! Image names: short names mean Docker Hub, a missing tag means `latest`.
//!
//! The grammar is that of [distribution](https://pkg.go.dev/github.com/distribution/reference). It is read by hand: the regular
//! expression of the crate that has the type takes seven megabytes once it was used, and every agent reads names.

use oci_client::Reference;
use oci_spec::distribution::ParseError;

use super::ImageError;

/// The registry of names without one.
const DOCKER_HUB: &str = "docker.io";
/// The same, as old programs wrote it.
const DOCKER_HUB_OF_OLD: &str = "index.docker.io";
/// What a name without a folder is in, there.
const OFFICIAL: &str = "library";
const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;

/// Parses a name as users write it.
pub fn parse(text: &str) -> Result<Reference, ImageError> {
    read(text)
        .map_err(|error| ImageError::InvalidName { reference: text.to_owned(), detail: error.to_string() })
}

fn read(text: &str) -> Result<Reference, ParseError> {
    if text.is_empty() {
        return Err(ParseError::NameEmpty);
    }
    let (rest, digest) = text.split_once('@').map_or((text, None), |(rest, digest)| (rest, Some(digest)));
    // Before the last slash a colon begins a port, behind it a tag.
    let last = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[last..].find(':') {
        Some(colon) => (&rest[..last + colon], Some(&rest[last + colon + 1..])),
        None => (rest, None),
    };
    let (registry, repository) = split(name);
    if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(ParseError::NameContainsUppercase);
    }
    let is_name = is_registry(registry) && repository.split('/').all(is_component);
    if !is_name || tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(ParseError::ReferenceInvalidFormat);
    }
    if let Some(digest) = digest {
        check_digest(digest)?;
    }
    let repository = match registry == DOCKER_HUB && !repository.contains('/') {
        true => format!("{OFFICIAL}/{repository}"),
        false => repository.to_owned(),
    };
    if repository.len() > LONGEST_NAME {
        return Err(ParseError::NameTooLong);
    }
    let registry = registry.to_owned();
    Ok(match (tag, digest) {
        (None, None) => Reference::with_tag(registry, repository, "latest".to_owned()),
        (Some(tag), None) => Reference::with_tag(registry, repository, tag.to_owned()),
        (None, Some(digest)) => Reference::with_digest(registry, repository, digest.to_owned()),
        (Some(tag), Some(digest)) => {
            Reference::with_tag_and_digest(registry, repository, tag.to_owned(), digest.to_owned())
        }
    })
}

/// Registry and repository. What stands before the first slash is a registry only if it cannot be a folder.
fn split(name: &str) -> (&str, &str) {
    let is_host = |part: &str| {
        part == "localhost" || part.contains(['.', ':']) || part.bytes().any(|byte| byte.is_ascii_uppercase())
    };
    match name.split_once('/').filter(|(host, _)| is_host(host)) {
        Some((DOCKER_HUB_OF_OLD, repository)) => (DOCKER_HUB, repository),
        Some((host, repository)) => (host, repository),
        None => (DOCKER_HUB, name),
    }
}

/// `HOST[:PORT]`; a host is a name or an address, one of IPv6 in brackets.
fn is_registry(registry: &str) -> bool {
    let end = registry.rfind(']').map_or(0, |bracket| bracket + 1);
    let (host, port) = match registry[end..].find(':') {
        Some(colon) => (&registry[..end + colon], Some(&registry[end + colon + 1..])),
        None => (registry, None),
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit())) {
        return false;
    }
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => {
            !inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':')
        }
        None => host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        }),
    }
}

/// Letters and digits, with single separators between them: a period, one or two underscores, or hyphens.
fn is_component(part: &str) -> bool {
    let is_plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let is_separator = |run: &str| matches!(run, "." | "_" | "__") || run.bytes().all(|byte| byte == b'-');
    part.starts_with(is_plain) && part.ends_with(is_plain) && part.split(is_plain).all(is_separator)
}

fn is_tag(tag: &str) -> bool {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    (1..=LONGEST_TAG).contains(&tag.len())
        && tag.starts_with(is_word)
        && tag.chars().all(|letter| is_word(letter) || matches!(letter, '.' | '-'))
}

fn check_digest(digest: &str) -> Result<(), ParseError> {
    let (algorithm, value) = digest.split_once(':').ok_or(ParseError::DigestInvalidFormat)?;
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(ParseError::DigestUnsupported),
    };
    if !value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(ParseError::DigestInvalidFormat);
    }
    if value.len() == length { Ok(()) } else { Err(ParseError::DigestInvalidLength) }
}

/// `name@sha256:…`, without the tag.
pub fn with_digest(name: &Reference) -> String {
    format!("{}/{}@{}", name.registry(), name.repository(), name.digest().unwrap_or_default())
}

/// Whether a registry is on this machine: those are spoken to without TLS.
pub fn is_loopback(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => registry,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_mean_docker_hub() {
        assert_eq!(parse("nginx").unwrap().whole(), "docker.io/library/nginx:latest");
        assert_eq!(parse("bitnami/redis:7").unwrap().whole(), "docker.io/bitnami/redis:7");
        assert_eq!(parse("orlop.dev/demo:v1").unwrap().whole(), "orlop.dev/demo:v1");
        assert_eq!(parse("localhost:5000/a/b").unwrap().whole(), "localhost:5000/a/b:latest");
        assert_eq!(parse("index.docker.io/nginx").unwrap().whole(), "docker.io/library/nginx:latest");
        assert_eq!(parse("[::1]:5000/a:b").unwrap().whole(), "[::1]:5000/a:b");
        assert_eq!(parse("Host/a").unwrap().whole(), "Host/a:latest");
    }

    /// The crate's own reading, where it reads as distribution does.
    #[test]
    fn names_are_read_as_by_the_regular_expression() {
        let digest = "f".repeat(64);
        let parts =
            ["a", "a.b", "a..b", "a_b", "a__b", "a___b", "a---b", "-a", "a-", "A", "a.com", "a:5", "b:", ""];
        let ends = ["", ":", ":t", ":T_.-9", ":.t", ":a:b", "@x", "@sha256:12", "@md5:12"];
        let (long, at) = (format!(":{}", "t".repeat(129)), format!("@sha256:{digest}"));
        let tagged = format!(":t{at}");
        let ends = ends.into_iter().chain([&*long, &*at, &*tagged]);
        for end in ends {
            for first in parts {
                for second in parts {
                    let text = format!("{first}/{second}{end}");
                    for text in [&text, &format!("{first}{end}"), &format!("x.io/{text}")] {
                        let known: Result<Reference, _> = text.parse();
                        let read = read(text);
                        // A host in capitals is one, which the crate takes for a folder.
                        if text.starts_with("A/") || text.contains("docker.io/A/") {
                            continue;
                        }
                        assert_eq!(read.ok(), known.ok(), "{text}");
                    }
                }
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "UPPER/Case", "a b", "name:", "x@sha256:12"] {
            assert!(matches!(parse(bad), Err(ImageError::InvalidName { .. })), "{bad:?}");
        }
    }

    #[test]
    fn loopback_registries_need_no_tls() {
        for (registry, expected) in
            [("localhost:5000", true), ("127.0.0.1:5000", true), ("[::1]:5000", true), ("quay.io", false)]
        {
            assert_eq!(is_loopback(registry), expected, "{registry}");
        }
    }
}
