//! Why the last plan of each object looked as it did.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use controller_core::world::{Controller, Work};
use jiff::Timestamp;

/// How many objects are remembered.
const REMEMBERED: usize = 4096;

/// The reasons of one plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Because {
    /// When it was planned.
    pub at: Timestamp,
    /// The reasons, most important first.
    pub reasons: Vec<String>,
}

/// The reasons of the last plans that had any. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Why {
    records: Arc<Mutex<Records>>,
}

#[derive(Debug, Default)]
struct Records {
    by_work: BTreeMap<Work, Because>,
    order: VecDeque<Work>,
}

impl Why {
    /// Why the controller's last plan for an object looked as it did.
    pub fn get(&self, controller: Controller, namespace: &str, name: &str) -> Option<Because> {
        let work = Work::new(controller, controller_core::world::Key::new(namespace, name));
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.by_work.get(&work).cloned()
    }

    /// Remembers reasons; no reasons: nothing is to be said of the object any more.
    pub(crate) fn record(&self, work: &Work, at: Timestamp, reasons: Vec<String>) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if reasons.is_empty() {
            records.by_work.remove(work);
            return;
        }
        if records.by_work.insert(work.clone(), Because { at, reasons }).is_none() {
            records.order.push_back(work.clone());
        }
        while records.order.len() > REMEMBERED {
            if let Some(oldest) = records.order.pop_front() {
                records.by_work.remove(&oldest);
            }
        }
    }
}
