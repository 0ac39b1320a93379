//! Scores: of the nodes that fit, which is best. Each score is 0 to 100; weights are Kubernetes'.

use rand::Rng;

use crate::affinity::Near;
use crate::cluster::{Cluster, Slot};
use crate::pod::PodInfo;
use crate::spread::Wishes;
use crate::verdict::Verdict;

const TAINT: i64 = 3;
const NODE_AFFINITY: i64 = 2;
const SPREAD: i64 = 2;
const POD_AFFINITY: i64 = 2;

/// The best of the nodes that fit, and its score. Of several equal ones chance decides.
pub(crate) fn best(
    cluster: &Cluster,
    pod: &PodInfo,
    verdicts: &[Verdict],
    near: &Near<'_>,
    feasible: &[usize],
    rng: &mut impl Rng,
) -> Option<(usize, i64)> {
    let mut totals: Vec<i64> = feasible
        .iter()
        .map(|at| cluster.slots.get(*at).map_or(0, |slot| least_allocated(slot, pod) + balanced(slot, pod)))
        .collect();
    let verdict = |at: &usize| verdicts.get(*at);
    add_share(&mut totals, feasible, NODE_AFFINITY, |at| verdict(at).map_or(0, |verdict| verdict.preference));
    let avoided: Vec<i64> =
        feasible.iter().map(|at| verdict(at).map_or(0, |verdict| verdict.dislikes)).collect();
    let most = avoided.iter().max().copied().unwrap_or(0);
    for ((total, avoided), at) in totals.iter_mut().zip(&avoided).zip(feasible) {
        *total += TAINT * if most == 0 { 100 } else { 100 - percent(*avoided, most) };
        *total += verdict(at).map_or(0, |verdict| verdict.images);
    }
    let wishes = Wishes::of(cluster, pod, verdicts, feasible);
    if !wishes.is_empty() {
        for (total, score) in totals.iter_mut().zip(wishes.scores(feasible)) {
            *total += SPREAD * score;
        }
    }
    if near.has_wishes() {
        add_range(&mut totals, feasible, POD_AFFINITY, |at| near.score(*at));
    }
    choose(&totals, feasible, rng)
}

/// Reservoir sampling over the best.
fn choose(totals: &[i64], feasible: &[usize], rng: &mut impl Rng) -> Option<(usize, i64)> {
    let best = *totals.iter().max()?;
    let mut chosen = None;
    let mut equal = 0_u32;
    for (at, _) in feasible.iter().zip(totals).filter(|(_, total)| **total == best) {
        equal += 1;
        if equal == 1 || rng.random_range(0..equal) == 0 {
            chosen = Some(*at);
        }
    }
    chosen.map(|at| (at, best))
}

/// Adds each value's share of the largest.
fn add_share(totals: &mut [i64], feasible: &[usize], weight: i64, value: impl Fn(&usize) -> i64) {
    let most = feasible.iter().map(&value).max().unwrap_or(0);
    if most == 0 {
        return;
    }
    for (total, at) in totals.iter_mut().zip(feasible) {
        *total += weight * percent(value(at), most);
    }
}

/// Adds each value's place between the smallest and the largest.
fn add_range(totals: &mut [i64], feasible: &[usize], weight: i64, value: impl Fn(&usize) -> i64) {
    let values: Vec<i64> = feasible.iter().map(value).collect();
    let least = values.iter().min().copied().unwrap_or(0);
    let most = values.iter().max().copied().unwrap_or(0);
    if most == least {
        return;
    }
    for (total, value) in totals.iter_mut().zip(values) {
        *total += weight * percent(value - least, most - least);
    }
}

/// The less of CPU and memory is asked for, the better.
fn least_allocated(slot: &Slot, pod: &PodInfo) -> i64 {
    let free = |offered: i64, asked: i64| (offered > 0).then(|| percent((offered - asked).max(0), offered));
    let cpu = free(slot.info.allocatable.cpu, slot.scored_cpu + pod.requests.scored_cpu);
    let memory = free(slot.info.allocatable.memory, slot.scored_memory + pod.requests.scored_memory);
    match (cpu, memory) {
        (Some(cpu), Some(memory)) => (cpu + memory) / 2,
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => 0,
    }
}

/// The more evenly CPU and memory are used, the better. Says nothing of pods that ask for neither.
fn balanced(slot: &Slot, pod: &PodInfo) -> i64 {
    let asked = &pod.requests.exact;
    if asked.cpu == 0 && asked.memory == 0 {
        return 0;
    }
    let share = |offered: i64, asked: i64| (offered > 0).then(|| (asked as f64 / offered as f64).min(1.0));
    let cpu = share(slot.info.allocatable.cpu, slot.used.cpu + asked.cpu);
    let memory = share(slot.info.allocatable.memory, slot.used.memory + asked.memory);
    match (cpu, memory) {
        // The standard deviation of two values is half their distance.
        (Some(cpu), Some(memory)) => ((1.0 - (cpu - memory).abs() / 2.0) * 100.0) as i64,
        _ => 100,
    }
}

/// `100 * part / whole`. In floating point: this is done for every node of every decision, and dividing whole numbers takes
/// several times as long. Both are far below the 2^53 up to which that is exact.
fn percent(part: i64, whole: i64) -> i64 {
    (part as f64 * 100.0 / whole as f64) as i64
}
