//! `/healthz`, `/livez` and `/readyz`, with `?verbose`, `?exclude=` and a path per check.

use std::fmt::Write as _;

use apiserver_core::Response as CoreResponse;
use http::StatusCode;

/// What the checks found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Health {
    /// The store answers.
    pub(crate) store: bool,
    /// The server is not stopping.
    pub(crate) serving: bool,
}

/// Whether the path is one of a health check.
pub(crate) fn is_health(path: &str) -> bool {
    let root = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    matches!(root, "healthz" | "livez" | "readyz")
}

/// The answer to a health check's path.
pub(crate) fn answer(health: Health, path: &str, query: &str) -> CoreResponse {
    let (root, check) = match path.trim_start_matches('/').split_once('/') {
        Some((root, check)) => (root, check.trim_end_matches('/')),
        None => (path.trim_start_matches('/'), ""),
    };
    let mut checks = vec![("ping", true), ("store", health.store)];
    if root == "readyz" {
        checks.push(("shutdown", health.serving));
    }
    if !check.is_empty() {
        return match checks.into_iter().find(|(name, _)| *name == check) {
            Some((_, true)) => CoreResponse::text(StatusCode::OK, "ok"),
            Some((name, false)) => CoreResponse::text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("internal server error: {name} check failed\n"),
            ),
            None => CoreResponse::text(StatusCode::NOT_FOUND, "404 page not found\n"),
        };
    }
    let parameters = || query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let excluded = |name: &str| parameters().any(|(key, value)| key == "exclude" && value == name);
    let verbose = parameters().any(|(key, _)| key == "verbose");

    let mut text = String::new();
    let mut healthy = true;
    for (name, good) in checks {
        // Writing into a String cannot fail.
        let _ = match (excluded(name), good) {
            (true, _) => writeln!(text, "[+]{name} excluded: ok"),
            (false, true) => writeln!(text, "[+]{name} ok"),
            (false, false) => {
                healthy = false;
                writeln!(text, "[-]{name} failed: reason withheld")
            }
        };
    }
    match (healthy, verbose) {
        (true, false) => CoreResponse::text(StatusCode::OK, "ok"),
        (true, true) => CoreResponse::text(StatusCode::OK, format!("{text}{root} check passed\n")),
        (false, _) => {
            CoreResponse::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{text}{root} check failed\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(health: Health, path: &str, query: &str, expected: (u16, &str)) {
        let response = answer(health, path, query);
        let body = response.body.to_bytes();
        assert_eq!((response.status.as_u16(), std::str::from_utf8(&body).expect("text")), expected);
    }

    #[test]
    fn checks_answer_as_clients_expect() {
        let good = Health { store: true, serving: true };
        let bad = Health { store: false, serving: false };
        check(good, "/readyz", "", (200, "ok"));
        check(good, "/livez", "verbose", (200, "[+]ping ok\n[+]store ok\nlivez check passed\n"));
        check(good, "/readyz/ping", "", (200, "ok"));
        check(good, "/readyz/nonsense", "", (404, "404 page not found\n"));
        check(bad, "/livez", "exclude=store", (200, "ok"));
        check(
            bad,
            "/readyz",
            "verbose=true",
            (
                500,
                "[+]ping ok\n[-]store failed: reason withheld\n[-]shutdown failed: reason withheld\nreadyz check failed\n",
            ),
        );
    }
}
