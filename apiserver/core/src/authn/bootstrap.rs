//! Bootstrap tokens, `ID.SECRET`: what a machine proves itself with before it has a certificate.
//!
//! Each is a Secret `bootstrap-token-ID` in kube-system
//! (<https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>), so that tokens are listed and revoked like
//! any other object.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use store_core::Snapshot;

use super::TokenError;
use crate::user::User;
use crate::{keys, scan};

/// The `type` of such a Secret.
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// What the names of such Secrets begin with; the id follows.
pub const SECRET_PREFIX: &str = "bootstrap-token-";
/// The group of all users who prove themselves so; further ones begin with it.
pub const GROUP: &str = "system:bootstrappers";

const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;

/// Reads a token as id and secret; `None` when it is of another form.
pub fn parse(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let fits = id.len() == ID_LENGTH && secret.len() == SECRET_LENGTH && plain(id) && plain(secret);
    fits.then_some((id, secret))
}

/// The user `system:bootstrap:ID` that a token proves.
pub(super) fn user(
    snapshot: &Snapshot,
    (id, secret): (&str, &str),
    now: Timestamp,
) -> Result<User, TokenError> {
    let key = keys::object("", "secrets", "kube-system", &format!("{SECRET_PREFIX}{id}"));
    let stored = snapshot.get(&key).ok_or(TokenError::Bootstrap)?.value.as_ref();
    let data = |field: &str| {
        let encoded = scan::text(stored, &["data", field])?;
        String::from_utf8(STANDARD.decode(encoded.as_bytes()).ok()?).ok()
    };
    let right = scan::text(stored, &["type"]).as_deref() == Some(SECRET_TYPE)
        && scan::locate(stored, &["metadata", "deletionTimestamp"]).is_none()
        && data("token-id").as_deref() == Some(id)
        && data("token-secret").is_some_and(|known| same(known.as_bytes(), secret.as_bytes()))
        && data("usage-bootstrap-authentication").as_deref() == Some("true");
    if !right {
        return Err(TokenError::Bootstrap);
    }
    if let Some(expiration) = data("expiration") {
        let until: Timestamp = expiration.parse().map_err(|_| TokenError::Bootstrap)?;
        if now >= until {
            return Err(TokenError::BootstrapExpired);
        }
    }
    let mut groups = vec![GROUP.to_owned()];
    let further = data("auth-extra-groups").unwrap_or_default();
    let of_ours = |group: &&str| group.strip_prefix(GROUP).is_some_and(|rest| rest.starts_with(':'));
    groups.extend(further.split(',').map(str::trim).filter(of_ours).map(str::to_owned));
    Ok(User::authenticated(&format!("system:bootstrap:{id}"), &groups))
}

/// Compares in a time that tells nothing of where the difference is.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}
