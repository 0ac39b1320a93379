//! The named members of an object: sorted, in one piece of memory, for definitions are many and their objects small.

use super::Node;

/// The properties of an object.
#[derive(Debug, Default)]
pub(crate) struct Properties(Box<[(Box<str>, Node)]>);

// === impl Properties ===

impl Properties {
    /// The node of a member.
    pub fn get(&self, name: &str) -> Option<&Node> {
        let at = self.0.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        Some(&self.0[at].1)
    }

    /// Whether there is a member of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All members, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(name, node)| (&**name, node))
    }
}

impl FromIterator<(Box<str>, Node)> for Properties {
    fn from_iter<I: IntoIterator<Item = (Box<str>, Node)>>(members: I) -> Self {
        let mut members: Vec<(Box<str>, Node)> = members.into_iter().collect();
        members.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self(members.into())
    }
}
