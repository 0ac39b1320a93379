//! Image names: short names mean Docker Hub, a missing tag means `latest`.

use std::str::FromStr;

use oci_client::Reference;

use super::ImageError;

/// Parses a name as users write it.
pub fn parse(text: &str) -> Result<Reference, ImageError> {
    Reference::from_str(text)
        .map_err(|error| ImageError::InvalidName { reference: text.to_owned(), detail: error.to_string() })
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
