//! Scaling in the midst of a rollout: old and new sets share the change in proportion to their sizes.

use super::annotations::{DESIRED_REPLICAS, MAX_REPLICAS};
use super::sets::{Set, Sets};

/// Whether the Deployment's size changed since its sets were last scaled.
pub fn is_due(sets: &Sets) -> bool {
    let wanted = sets.wanted();
    sets.iter()
        .filter(|set| set.replicas > 0)
        .any(|set| set.noted(DESIRED_REPLICAS).is_some_and(|noted| noted != wanted))
}

/// Brings the sets to the Deployment's size without going on with the rollout.
pub fn plan(sets: &mut Sets) {
    if let Some(place) = only_active(sets) {
        sets.scale(place, sets.wanted());
        return;
    }
    if is_saturated(sets) {
        for place in sets.old_places() {
            if sets.at(place).replicas > 0 {
                sets.scale(place, 0);
            }
        }
        return;
    }
    if sets.is_rolling() {
        share(sets);
    }
}

/// The one set with pods; without any, the new set or else the youngest. None when several have pods.
fn only_active(sets: &Sets) -> Option<usize> {
    let active: Vec<usize> = places(sets).filter(|place| sets.at(*place).replicas > 0).collect();
    match active.as_slice() {
        [] => sets.new_place().or_else(|| sets.old_places().last().copied()),
        [one] => Some(*one),
        _ => None,
    }
}

fn places(sets: &Sets) -> std::ops::Range<usize> {
    0..sets.iter().count()
}

/// Whether the new set alone already has everything.
fn is_saturated(sets: &Sets) -> bool {
    let wanted = sets.wanted();
    sets.new_set().is_some_and(|set| {
        set.replicas == wanted && set.noted(DESIRED_REPLICAS) == Some(wanted) && set.available() == wanted
    })
}

fn share(sets: &mut Sets) {
    let allowed = if sets.wanted() > 0 { sets.most() } else { 0 };
    let change = allowed - sets.total();
    let mut active: Vec<usize> = places(sets).filter(|place| sets.at(*place).replicas > 0).collect();
    // The largest first; of equal ones the younger grows and the older shrinks first.
    active.sort_by_key(|place| {
        let age_rank = if change > 0 { usize::MAX - place } else { *place };
        (std::cmp::Reverse(sets.at(*place).replicas), age_rank)
    });
    let mut sizes = Vec::with_capacity(active.len());
    let mut given = 0;
    for place in &active {
        let part = proportion(sets, sets.at(*place), change, given);
        sizes.push(sets.at(*place).replicas + part);
        given += part;
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + change - given).max(0);
    }
    for (place, size) in active.into_iter().zip(sizes) {
        sets.scale(place, size.max(0));
    }
}

fn proportion(sets: &Sets, set: &Set, change: i32, given: i32) -> i32 {
    if change == 0 || change == given {
        return 0;
    }
    let fraction = fraction(sets, set);
    let left = change - given;
    if change > 0 { fraction.min(left) } else { fraction.max(left) }
}

/// What the set would gain if it kept its share of the whole.
fn fraction(sets: &Sets, set: &Set) -> i32 {
    if sets.wanted() == 0 {
        return -set.replicas;
    }
    let max_now = i64::from(sets.most());
    let before = set.noted(MAX_REPLICAS).filter(|noted| *noted != 0);
    let before = before.or_else(|| sets.deployment.status.as_ref()?.replicas).filter(|count| *count > 0);
    let Some(before) = before.map(i64::from) else { return 0 };
    // Rounded half away from zero, as the share of a whole.
    let doubled = i64::from(set.replicas) * max_now * 2;
    let size = (doubled + before).div_euclid(2 * before);
    i32::try_from(size).unwrap_or(i32::MAX) - set.replicas
}
