//! Which images go when the disk gets full.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock;
use crate::disk::Disk;
use crate::runtime::Image;

/// When images are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Above this share of the disk, in percent, removal begins.
    pub high_percent: u64,
    /// It aims at this share.
    pub low_percent: u64,
    /// Younger images stay.
    pub min_age: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { high_percent: 85, low_percent: 80, min_age: Duration::from_secs(120) }
    }
}

/// The images to remove, longest unused first. `in_use` holds image ids.
pub fn plan(
    policy: Policy,
    disk: Disk,
    images: &[Image],
    in_use: &BTreeSet<String>,
    now: Timestamp,
) -> Vec<String> {
    if disk.capacity == 0 {
        return Vec::new();
    }
    let used = disk.capacity.saturating_sub(disk.available);
    if used * 100 / disk.capacity < policy.high_percent {
        return Vec::new();
    }
    let aim = disk.capacity / 100 * policy.low_percent;
    let mut wanted = used.saturating_sub(aim);
    let mut unused: Vec<_> = images
        .iter()
        .filter(|image| !in_use.contains(&image.id))
        .filter(|image| image.last_used_at.is_none_or(|at| clock::between(at, now) >= policy.min_age))
        .collect();
    unused.sort_by_key(|image| image.last_used_at);
    let mut chosen = Vec::new();
    for image in unused {
        if wanted == 0 {
            break;
        }
        wanted = wanted.saturating_sub(image.size_bytes);
        chosen.push(image.id.clone());
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, used: i64) -> Image {
        Image {
            id: id.into(),
            tags: vec![],
            digests: vec![],
            size_bytes: 10,
            user: String::new(),
            last_used_at: Timestamp::from_second(used).ok(),
        }
    }

    #[test]
    fn oldest_unused_first_and_only_when_full() {
        let images = [image("new", 995), image("b", 20), image("a", 10), image("used", 1), image("c", 30)];
        let in_use = BTreeSet::from(["used".to_owned()]);
        let check = |available: u64, expected: &[&str]| {
            let disk = Disk { capacity: 200, available };
            let now = Timestamp::from_second(1000).expect("in range");
            assert_eq!(plan(Policy::default(), disk, &images, &in_use, now), expected);
        };
        check(31, &[]);
        check(25, &["a", "b"]);
        check(0, &["a", "b", "c"]);
    }
}
