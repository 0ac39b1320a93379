//! The shapes of the pods that are known, each held once: the pods of a workload are alike, and a shape is the largest part of
//! what is known of a pod.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use crate::pod::Shape;

/// Below this number none is looked for that is out of use.
const FEW: usize = 64;

/// Shapes in use, by their ids.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    known: BTreeMap<Arc<str>, Weak<Shape>>,
    /// With so many, those out of use are forgotten.
    sweep_at: usize,
}

// === impl Shapes ===

impl Shapes {
    /// The shape as it is held already, or this one, which others share from now on.
    pub(crate) fn share(&mut self, shape: Arc<Shape>) -> Arc<Shape> {
        if let Some(known) = self.known.get(&shape.id).and_then(Weak::upgrade) {
            return known;
        }
        if self.known.len() >= self.sweep_at.max(FEW) {
            self.known.retain(|_, shape| shape.strong_count() > 0);
            self.sweep_at = self.known.len() * 2;
        }
        self.known.insert(Arc::clone(&shape.id), Arc::downgrade(&shape));
        shape
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::PodInfo;
    use serde_json::json;

    fn shape(image: usize) -> Arc<Shape> {
        let pod = json!({"spec": {"containers": [{"name": "c", "image": format!("i{image}")}]}});
        PodInfo::read(&serde_json::from_value(pod).expect("a pod")).shape
    }

    #[test]
    fn equal_shapes_are_one_and_unused_ones_are_forgotten() {
        let mut shapes = Shapes::default();
        let first = shapes.share(shape(0));
        assert!(Arc::ptr_eq(&first, &shapes.share(shape(0))));
        for number in 1..10 * FEW {
            assert!(!Arc::ptr_eq(&first, &shapes.share(shape(number))));
        }
        assert!(shapes.known.len() <= FEW);
        assert!(Arc::ptr_eq(&first, &shapes.share(shape(0))));
    }
}
