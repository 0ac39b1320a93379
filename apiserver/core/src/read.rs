//! Reads: one object, or a consistent list, page by page.

use bytes::Bytes;
use http::StatusCode;
use store_core::Entry;

use crate::call::Call;
use crate::convert::{self, Converted};
use crate::create;
use crate::failure::{self, Refused};
use crate::output::ListMeta;
use crate::paging::{self, Token};
use crate::prepare::Planned;
use crate::request::VersionMatch;
use crate::response::Prepared;
use crate::selection::Selection;

/// GET of one object.
pub(crate) fn get(call: &Call<'_>) -> Planned {
    let entry = call.entry()?;
    if call.is_plain() {
        return Ok(Prepared::Respond(crate::Response::json(StatusCode::OK, entry.value.clone())));
    }
    create::respond(call, StatusCode::OK, entry.value.clone(), Vec::new())
}

/// GET of a collection.
pub(crate) fn list(call: &Call<'_>) -> Planned {
    let options = call.options();
    let snapshot = call.world.snapshot;
    let selection = Selection::parse(call.resource, options)?;
    check_version(call)?;
    let prefix = call.prefix();
    let whole = selection.is_everything() && options.limit == 0 && options.continue_token.is_empty();
    let memo = (whole && call.is_plain()).then(|| call.world.derived.lists());
    if let Some(body) = memo.and_then(|lists| lists.get(&prefix, call.resource, snapshot.revision())) {
        return Ok(Prepared::Respond(crate::Response::json(StatusCode::OK, body)));
    }
    let token = token(call)?;
    let start = token.as_ref().map_or_else(|| prefix.clone(), |token| format!("{prefix}{}", token.start));
    let limit = if options.limit == 0 { usize::MAX } else { options.limit as usize };
    let viewed = viewed(call, &selection, &prefix, &start)?;
    let mut items: Vec<&Bytes> = Vec::new();
    let mut rest = candidates(call, &selection, &prefix, &start);
    let mut next = None;
    for (key, entry) in rest.by_ref() {
        let seen = viewed.get(&entry.value).unwrap_or(&entry.value);
        if !selection.is_everything() && !selection.matches(key, seen) {
            continue;
        }
        if items.len() == limit {
            next = Some(key);
            break;
        }
        items.push(seen);
    }
    let mut meta = ListMeta { revision: snapshot.revision(), ..ListMeta::default() };
    if let Some(next) = next {
        let start = String::from_utf8_lossy(&next[prefix.len()..]).into_owned();
        if selection.is_everything() {
            let ahead = match &token {
                Some(token) => token.remaining,
                None => call.world.counted(&prefix),
            };
            let left = ahead.and_then(|ahead| ahead.checked_sub(items.len() as u64));
            meta.remaining = Some(left.unwrap_or_else(|| rest.count() as u64 + 1));
        }
        let token = Token { revision: snapshot.revision(), start, remaining: meta.remaining };
        meta.continue_token = token.encode();
    }
    let shown = if convert::by_webhook(call.resource) { call.in_version(&items)? } else { Vec::new() };
    let items = if shown.is_empty() { items } else { shown.iter().collect() };
    let response = call.output().list(&items, &meta);
    if let (Some(lists), crate::Body::One(body)) = (memo, &response.body) {
        lists.put(&prefix, call.resource, snapshot.revision(), body);
    }
    Ok(Prepared::Respond(response))
}

/// Stored objects that a webhook has to convert before it can be said whether they are selected.
pub(crate) fn viewed(
    call: &Call<'_>,
    selection: &Selection,
    prefix: &str,
    start: &str,
) -> Planned<Converted> {
    if !convert::by_webhook(call.resource) || selection.is_by_name() {
        return Ok(Converted::new());
    }
    let stored: Vec<&Bytes> =
        candidates(call, selection, prefix, start).map(|(_, entry)| &entry.value).collect();
    let converted = call.in_version(&stored)?;
    Ok(stored.into_iter().cloned().zip(converted).collect())
}

type Entries<'a> = Box<dyn Iterator<Item = (&'a Bytes, &'a Entry)> + 'a>;

/// The entries that may be selected, in key order: of one node or one name where the selector says so.
pub(crate) fn candidates<'a>(
    call: &Call<'a>,
    selection: &Selection,
    prefix: &str,
    start: &str,
) -> Entries<'a> {
    let (snapshot, derived) = (call.world.snapshot, call.world.derived);
    if let Some(node) = selection.node().filter(|_| derived.revision() == snapshot.revision())
        && call.is("", "pods")
    {
        let (prefix, start) = (prefix.as_bytes().to_vec(), start.as_bytes().to_vec());
        return Box::new(
            derived
                .pods_of(node)
                .filter(move |key| key.starts_with(&prefix) && key[..] >= start[..])
                .filter_map(|key| Some((key, snapshot.get(key)?))),
        );
    }
    if let Some(name) = selection.name()
        && (!call.resource.namespaced() || !call.namespace().is_empty())
    {
        let key = format!("{prefix}{name}");
        let end = format!("{key}\0");
        let from = if key.as_str() < start { end.clone() } else { key };
        return Box::new(snapshot.range(from.as_bytes(), end.as_bytes()));
    }
    if start == prefix {
        return Box::new(snapshot.prefix(prefix.as_bytes()));
    }
    let end = store_core::snapshot::prefix_end(prefix.as_bytes()).unwrap_or_default();
    Box::new(snapshot.range(start.as_bytes(), &end))
}

/// Where the list goes on, when it is not its first page.
fn token(call: &Call<'_>) -> Result<Option<Token>, Refused> {
    let token = &call.options().continue_token;
    if token.is_empty() {
        return Ok(None);
    }
    let token = Token::parse(token)
        .ok_or_else(|| failure::bad_request("continue key is not valid: the token is malformed"))?;
    if token.revision != call.world.snapshot.revision() {
        return Err(paging::expired());
    }
    Ok(Some(token))
}

/// Checks the combination of resourceVersion, its match rule and the token.
fn check_version(call: &Call<'_>) -> Result<(), Refused> {
    let options = call.options();
    let version = &options.resource_version;
    let invalid =
        |field: &str, why: &str| Err(failure::bad_request(&format!("{field}: Invalid value: {why}")));
    if !version.is_empty() && version.parse::<u64>().is_err() {
        return invalid(
            "resourceVersion",
            &format!("{version:?}: strconv.ParseUint: parsing {version:?}: invalid syntax"),
        );
    }
    if !options.continue_token.is_empty() {
        if !version.is_empty() && version != "0" {
            return Err(failure::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        if options.version_match.is_some() {
            return Err(failure::bad_request(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided",
            ));
        }
        return Ok(());
    }
    match (options.version_match, version.as_str()) {
        (Some(_), "") => Err(failure::bad_request(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        )),
        (Some(VersionMatch::Exact), "0") => Err(failure::bad_request(
            "resourceVersionMatch: Forbidden: resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
        )),
        _ => Ok(()),
    }
}
