//! The order of a merged list: the patch's items as the patch has them, the server's own as the server had them.

use std::collections::BTreeMap;

use serde_json::Value;

/// What tells an item from others: its merge key's value, or the item itself.
pub(super) fn identity(item: &Value, key: Option<&str>) -> String {
    match key {
        Some(key) if item.is_object() => item.get(key).unwrap_or(&Value::Null).to_string(),
        _ => item.to_string(),
    }
}

/// Where each item is first.
pub(super) fn places(items: &[Value], key: Option<&str>) -> BTreeMap<String, usize> {
    let mut places = BTreeMap::new();
    for (at, item) in items.iter().enumerate() {
        places.entry(identity(item, key)).or_insert(at);
    }
    places
}

/// An item with its place in either order.
struct Placed {
    item: Value,
    server: Option<usize>,
}

/// Orders `merged`. Where both orders know two items, the server's order decides which of its own come between.
pub(super) fn enforce(
    merged: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    key: Option<&str>,
) -> Vec<Value> {
    let (in_patch, in_server) = (places(patch_order, key), places(server_order, key));
    let (mut patched, mut own) = (Vec::new(), Vec::new());
    for item in merged {
        let identity = identity(&item, key);
        let server = in_server.get(&identity).copied();
        match in_patch.get(&identity) {
            Some(place) => patched.push((*place, Placed { item, server })),
            None => own.push(Placed { item, server }),
        }
    }
    patched.sort_by_key(|(place, _)| *place);
    own.sort_by_key(|placed| placed.server);
    let mut ordered = Vec::with_capacity(patched.len() + own.len());
    let mut patched = patched.into_iter().map(|(_, placed)| placed).peekable();
    let mut own = own.into_iter().peekable();
    loop {
        let own_first = match (own.peek(), patched.peek()) {
            (None, None) => return ordered,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(left), Some(right)) => {
                left.server.zip(right.server).is_some_and(|(left, right)| left < right)
            }
        };
        let next = if own_first { own.next() } else { patched.next() };
        ordered.extend(next.map(|placed| placed.item));
    }
}
