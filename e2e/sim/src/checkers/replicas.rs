//! `replicas-agree`: at every revision all members have applied the same event and have the same state, by its hash.
//! `acknowledged-survives`: what was acknowledged is never replaced by something else.
//!
//! The events that members publish are put together to the one order of the run, which other checkers look at.

use std::cell::{Ref, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use store_core::snapshot::FIRST_REVISION;
use store_core::{Change, Event, Snapshot, hash};

use crate::kernel::Sim;

/// How many of the latest states are kept.
const KEPT_STATES: usize = 4000;

/// The live keys at a revision, with the revision of each.
pub type State = OrdMap<Bytes, (u64, Bytes)>;

/// The one order of events, as members publish it.
pub struct Order {
    events: Vec<Arc<Event>>,
    hashes: Vec<u64>,
    states: BTreeMap<u64, State>,
    /// The revisions at which each key was written or deleted, with whether it lived from there on.
    versions: BTreeMap<Bytes, Vec<(u64, bool)>>,
}

/// The checker.
pub struct Replicas {
    sim: Sim,
    order: RefCell<Order>,
}

// === impl Order ===

impl Order {
    /// The newest revision.
    pub fn revision(&self) -> u64 {
        FIRST_REVISION + self.events.len() as u64
    }

    /// The event of a revision.
    pub fn event(&self, revision: u64) -> Option<&Arc<Event>> {
        self.events.get(usize::try_from(revision.checked_sub(FIRST_REVISION + 1)?).ok()?)
    }

    /// All events, oldest first.
    pub fn events(&self) -> &[Arc<Event>] {
        &self.events
    }

    /// The state at a revision, while it is kept.
    pub fn state(&self, revision: u64) -> Option<&State> {
        self.states.get(&revision)
    }

    /// The newest state.
    pub fn newest(&self) -> State {
        self.states.last_key_value().map(|(_, state)| state.clone()).unwrap_or_default()
    }

    /// When a key was written and deleted: the revision, and whether the key lived from there on.
    pub fn versions(&self, key: &[u8]) -> &[(u64, bool)] {
        self.versions.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    fn push(&mut self, event: &Arc<Event>) {
        let mut state = self.newest();
        let mut sum = self.hashes.last().copied().unwrap_or(0);
        if let Some((revision, value)) = state.get(&event.key) {
            sum = sum.wrapping_sub(hash::entry(&event.key, *revision, value));
        }
        let lives = match &event.change {
            Change::Put { value, .. } => {
                sum = sum.wrapping_add(hash::entry(&event.key, event.revision, value));
                state.insert(event.key.clone(), (event.revision, value.clone()));
                true
            }
            Change::Delete { .. } => {
                state.remove(&event.key);
                false
            }
        };
        self.versions.entry(event.key.clone()).or_default().push((event.revision, lives));
        self.events.push(event.clone());
        self.hashes.push(sum);
        self.states.insert(event.revision, state);
        if self.states.len() > KEPT_STATES {
            self.states.pop_first();
        }
    }
}

// === impl Replicas ===

impl Replicas {
    /// No member has published anything.
    pub fn new(sim: &Sim) -> Self {
        let states = BTreeMap::from([(FIRST_REVISION, State::new())]);
        let order = Order { events: Vec::new(), hashes: Vec::new(), states, versions: BTreeMap::new() };
        Self { sim: sim.clone(), order: RefCell::new(order) }
    }

    /// The one order.
    pub fn order(&self) -> Ref<'_, Order> {
        self.order.borrow()
    }

    /// A member has applied an event. Returns whether it is the first to do so.
    pub fn published(&self, member: u64, event: &Arc<Event>, acknowledged: u64) -> bool {
        let mut order = self.order.borrow_mut();
        if event.revision == order.revision() + 1 {
            order.push(event);
            return true;
        }
        let revision = event.revision;
        match order.event(revision) {
            Some(known) if known == event => {}
            Some(known) => {
                let id = if revision <= acknowledged { "acknowledged-survives" } else { "replicas-agree" };
                let (one, other) = (describe(known), describe(event));
                let message =
                    format!("member {member} has at revision {revision} {other}, others have {one}");
                self.sim.violated(id, message);
            }
            None => {
                let newest = order.revision();
                let message = format!("member {member} publishes revision {revision} right after {newest}");
                self.sim.violated("replicas-agree", message);
            }
        }
        false
    }

    /// A member shows a state.
    pub fn state(&self, member: u64, snapshot: &Snapshot) {
        let order = self.order.borrow();
        let revision = snapshot.revision();
        let known = match revision.checked_sub(FIRST_REVISION + 1) {
            None => Some(0),
            Some(place) => order.hashes.get(place as usize).copied(),
        };
        if known != Some(snapshot.hash()) {
            let hash = snapshot.hash();
            let message =
                format!("member {member} at revision {revision} has the hash {hash:x}, not {known:x?}");
            self.sim.violated("replicas-agree", message);
        }
    }
}

fn describe(event: &Event) -> String {
    let key = String::from_utf8_lossy(&event.key);
    match &event.change {
        Change::Put { value, .. } => {
            let value = String::from_utf8_lossy(value.get(..value.len().min(200)).unwrap_or_default());
            format!("put {key} = {value}")
        }
        Change::Delete { .. } => format!("delete {key}"),
    }
}
