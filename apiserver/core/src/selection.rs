//! Which objects of a collection are meant: label and field selectors, read from the objects' bytes.

/// A conjunction of label and field requirements.
#[derive(Clone, Debug, Default)]
pub struct Selection {}

impl Selection {
    /// Whether the object at `key` with these bytes is meant.
    pub fn matches(&self, _key: &[u8], _object: &[u8]) -> bool {
        true
    }
}
