//! The order of a merged list: the patch's items as the patch has them, the server's own as the server had them.

use serde_json::Value;

/// Orders `merged`. Where both orders know two items, the server's order decides which of its own come between.
pub(super) fn enforce(
    merged: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    key: Option<&str>,
) -> Vec<Value> {
    let place = |order: &[Value], item: &Value| order.iter().position(|other| same(other, item, key));
    let (mut patched, mut own): (Vec<_>, Vec<_>) =
        merged.into_iter().partition(|item| place(patch_order, item).is_some());
    patched.sort_by_key(|item| place(patch_order, item));
    own.sort_by_key(|item| place(server_order, item));
    let mut ordered = Vec::with_capacity(patched.len() + own.len());
    let (mut patched, mut own) = (patched.into_iter().peekable(), own.into_iter().peekable());
    loop {
        let own_first = match (own.peek(), patched.peek()) {
            (None, None) => return ordered,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(left), Some(right)) => place(server_order, left)
                .zip(place(server_order, right))
                .is_some_and(|(left, right)| left < right),
        };
        ordered.extend(if own_first { own.next() } else { patched.next() });
    }
}

fn same(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) if a.is_object() && b.is_object() => a.get(key) == b.get(key),
        _ => a == b,
    }
}
