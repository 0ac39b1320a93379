//! How full a disk is, and when that is too full.

/// On a large disk a small share is still a lot of room: with this many bytes free no disk is too full.
const ROOM_BYTES: u64 = 2 << 30;

/// Below this share of free bytes, in percent, a smaller disk is too full.
const FREE_PERCENT: u64 = 5;

/// The disk of a node's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Size in bytes.
    pub capacity: u64,
    /// Free bytes.
    pub available: u64,
}

// === impl Disk ===

impl Disk {
    /// Whether the node should get no further pods (condition `DiskPressure`). Kubernetes' threshold is 10 % of any
    /// disk, which on a large one keeps much room from ever being used.
    pub fn is_pressed(self) -> bool {
        self.available < (self.capacity / 100 * FREE_PERCENT).min(ROOM_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_of_share_and_room_counts() {
        let check = |capacity: u64, available: u64, expected: bool| {
            assert_eq!(Disk { capacity, available }.is_pressed(), expected, "{available} of {capacity}");
        };
        let gib = 1 << 30;
        check(10 * gib, gib / 2 + gib / 10, false);
        check(10 * gib, gib / 2 - gib / 10, true);
        check(1000 * gib, 3 * gib, false);
        check(1000 * gib, gib, true);
        check(0, 0, false);
    }
}
