//! Acting as somebody else: the `Impersonate-` headers, held against what the caller may impersonate.

use http::{HeaderMap, HeaderName};

use crate::authz::{self, Attributes};
use crate::failure::{self, Refused};
use crate::user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User};
use crate::world::World;

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const UID: HeaderName = HeaderName::from_static("impersonate-uid");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Whether a request is to act as somebody else. Every request is asked; nearly none is.
pub fn is_asked(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("impersonate-"))
}

/// The user that the headers of such a request name.
///
/// # Errors
/// 403 when the caller may not act as that user, 400 when the headers name none.
pub fn impersonated(world: &World<'_>, caller: &User, headers: &HeaderMap) -> Result<User, Refused> {
    let wanted = named(headers)?;
    let user =
        Attributes { verb: "impersonate", is_resource: true, resource: "users", ..Attributes::default() };
    match service_account(&wanted.name) {
        Some((namespace, name)) => {
            let attributes = Attributes { resource: "serviceaccounts", namespace, name, ..user };
            authz::check(world, caller, &attributes)?;
        }
        None => authz::check(world, caller, &Attributes { name: &wanted.name, ..user })?,
    }
    for group in &wanted.groups {
        authz::check(world, caller, &Attributes { resource: "groups", name: group, ..user })?;
    }
    if !wanted.uid.is_empty() {
        let attributes = Attributes { group: AUTHENTICATION, resource: "uids", name: &wanted.uid, ..user };
        authz::check(world, caller, &attributes)?;
    }
    for (key, values) in &wanted.extra {
        for value in values {
            let extra = Attributes { group: AUTHENTICATION, resource: "userextras", ..user };
            authz::check(world, caller, &Attributes { subresource: key, name: value, ..extra })?;
        }
    }
    Ok(with_usual_groups(wanted))
}

/// The user that the headers name, with no more than they say.
fn named(headers: &HeaderMap) -> Result<User, Refused> {
    let unreadable = |_| failure::bad_request("a header that names a user to impersonate is not readable");
    let mut user = User::default();
    for (name, value) in headers {
        if !name.as_str().starts_with("impersonate-") {
            continue;
        }
        let value = value.to_str().map_err(unreadable)?.to_owned();
        match name {
            name if name == USER => user.name = value,
            name if name == UID => user.uid = value,
            name if name == GROUP => user.groups.push(value),
            name => {
                if let Some(key) = name.as_str().strip_prefix(EXTRA) {
                    user.extra.entry(unescaped(key)).or_default().push(value);
                }
            }
        }
    }
    if user.name.is_empty() {
        return Err(failure::bad_request("groups, uid or extra are impersonated without a user"));
    }
    Ok(user)
}

/// Keys of extra facts are percent-encoded: a header's name has few characters.
fn unescaped(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'%')
            .then(|| {
                std::str::from_utf8(after.get(..2)?).ok().and_then(|code| u8::from_str_radix(code, 16).ok())
            })
            .flatten();
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Namespace and name of the service account that a user name means.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

fn with_usual_groups(user: User) -> User {
    let mut user = match (user.groups.is_empty(), service_account(&user.name)) {
        (true, Some((namespace, name))) => User {
            uid: user.uid.clone(),
            extra: user.extra.clone(),
            ..User::service_account(namespace, name)
        },
        _ => user,
    };
    let usual = if user.name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !user.in_group(AUTHENTICATED) && !user.in_group(UNAUTHENTICATED) {
        user.groups.push(usual.to_owned());
    }
    user
}

#[cfg(test)]
mod tests {
    use store_core::Snapshot;

    use super::*;
    use crate::authn::jwt::SigningKey;
    use crate::config::Config;
    use crate::user::MASTERS;
    use crate::world::Derived;

    /// What becomes of a request with these headers: `name groups`, or the message of the refusal.
    fn check(caller: &User, headers: &[(&str, &str)], expected: &str) {
        let snapshot = Snapshot::default();
        let derived = Derived::build(&snapshot);
        let config = Config::new(vec![SigningKey::from_seed(&[1; 32]).unwrap()]);
        let world = World { snapshot: &snapshot, derived: &derived, config: &config };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        assert_eq!(is_asked(&map), !headers.is_empty());
        let seen = match impersonated(&world, caller, &map) {
            Ok(user) => format!("{} {}", user.name, user.groups.join(",")),
            Err(refused) => refused.status.as_u16().to_string(),
        };
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_request_acts_as_the_user_it_names() {
        let admin = User::authenticated("admin", &[MASTERS.to_owned()]);
        check(&admin, &[("Impersonate-User", "jane")], "jane system:authenticated");
        check(
            &admin,
            &[("Impersonate-User", "jane"), ("Impersonate-Group", "a"), ("Impersonate-Group", "b")],
            "jane a,b,system:authenticated",
        );
        check(
            &admin,
            &[("Impersonate-User", "system:serviceaccount:ns:robot")],
            "system:serviceaccount:ns:robot system:serviceaccounts,system:serviceaccounts:ns,system:authenticated",
        );
        check(&admin, &[("Impersonate-User", ANONYMOUS)], "system:anonymous system:unauthenticated");
        check(&admin, &[("Impersonate-Group", "a")], "400");
    }

    #[test]
    fn who_may_not_impersonate_is_refused() {
        let jane = User::authenticated("jane", &[]);
        check(&jane, &[("Impersonate-User", "admin")], "403");
        check(&jane, &[("Impersonate-User", "jane"), ("Impersonate-Group", MASTERS)], "403");
    }

    #[test]
    fn keys_of_extra_facts_are_decoded() {
        assert_eq!(unescaped("example.com%2fscope"), "example.com/scope");
        assert_eq!(unescaped("100%"), "100%");
    }
}
