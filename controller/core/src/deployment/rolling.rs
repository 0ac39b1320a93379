//! The two ways from one template to the next: a few pods at a time, or all at once.

use jiff::Timestamp;

use super::View;
use super::sets::Sets;
use super::status::Draft;

/// Replaces pods within maxSurge and maxUnavailable, as far as it goes without news from the pods.
pub fn rolling_update(view: &View, sets: &mut Sets, next: &mut Draft, _now: Timestamp) {
    sets.ensure_new(view.by_name);
    if sets.collided {
        return next.collide();
    }
    // Each round either moves a size towards its goal or is the last.
    while grow_new(sets) | shrink_old(sets) {}
}

fn grow_new(sets: &mut Sets) -> bool {
    let Some(place) = sets.new_place() else { return false };
    let (current, wanted) = (sets.at(place).replicas, sets.wanted());
    let size = if current > wanted { wanted } else { sets.next_new_size() };
    current != size && sets.scale(place, size)
}

fn shrink_old(sets: &mut Sets) -> bool {
    let old = sets.old_places();
    if old.iter().all(|place| sets.at(*place).replicas == 0) {
        return false;
    }
    let floor = sets.wanted() - sets.max_unavailable();
    let unavailable_new = sets.new_set().map_or(0, |set| set.replicas - set.lasting());
    let mut room = sets.total() - floor - unavailable_new;
    if room <= 0 {
        return false;
    }
    let mut changed = false;
    // Pods that serve nobody go first: a bad release is taken back before a good pod is touched.
    for place in &old {
        let unhealthy = sets.at(*place).replicas - sets.at(*place).lasting();
        let fewer = unhealthy.min(room);
        if fewer > 0 {
            room -= fewer;
            changed |= sets.scale(*place, sets.at(*place).replicas - fewer);
        }
    }
    // Pods above a set's planned size are going already and do not count as available.
    let available = sets.iter().fold(0i32, |sum, set| sum.saturating_add(set.lasting()));
    let mut spare = available - floor;
    for place in &old {
        let fewer = sets.at(*place).replicas.min(spare);
        if fewer > 0 {
            spare -= fewer;
            changed |= sets.scale(*place, sets.at(*place).replicas - fewer);
        }
    }
    changed
}

/// Stops all old pods, waits until they have ended, then starts the new ones.
pub fn recreate(view: &View, sets: &mut Sets, next: &mut Draft, _now: Timestamp) {
    sets.sync_revision();
    let old = sets.old_places();
    let mut stopped = false;
    for place in &old {
        if sets.at(*place).replicas > 0 {
            stopped |= sets.scale(*place, 0);
        }
    }
    let running = old.iter().any(|place| {
        let set = sets.at(*place);
        set.actual() > 0 || set.object.as_ref().is_some_and(|object| (view.has_running_pods)(object))
    });
    if stopped || running {
        return;
    }
    if sets.new_set().is_none() {
        sets.ensure_new(view.by_name);
        if sets.collided {
            return next.collide();
        }
    }
    let wanted = sets.wanted();
    if let Some(place) = sets.new_place().filter(|place| sets.at(*place).replicas != wanted) {
        sets.scale(place, wanted);
    }
}
