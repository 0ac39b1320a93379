//! The short, stable name of a pod template.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

use crate::merge::to_json;

/// The hash of a template, encoded with letters that form no words. `collisions` gives the next name
/// when another object has taken this one.
pub fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut hasher = Fnv(0x811c_9dc5);
    hash_value(&to_json(template), &mut hasher);
    if let Some(count) = collisions {
        hasher.write(&count.to_le_bytes());
    }
    encode(hasher.finish())
}

/// Encodes a number safely: no vowels, none of 0, 1 and 3.
fn encode(number: u32) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    number
        .to_string()
        .bytes()
        .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
        .collect()
}

struct Fnv(u32);

impl Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }

    /// FNV leaves near inputs near: a last mix spreads them.
    fn finish(&self) -> u32 {
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 16)).wrapping_mul(0x85eb_ca6b);
        mixed = (mixed ^ (mixed >> 13)).wrapping_mul(0xc2b2_ae35);
        mixed ^ (mixed >> 16)
    }
}

/// Feeds a document in one canonical order: members by name, whatever order the map keeps.
fn hash_value(value: &Value, hasher: &mut Fnv) {
    match value {
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            members.sort_unstable_by_key(|(name, _)| name.as_str());
            hasher.write(b"{");
            for (name, member) in members {
                hasher.write(name.as_bytes());
                hasher.write(b":");
                hash_value(member, hasher);
            }
            hasher.write(b"}");
        }
        Value::Array(items) => {
            hasher.write(b"[");
            for item in items {
                hash_value(item, hasher);
                hasher.write(b",");
            }
            hasher.write(b"]");
        }
        other => hasher.write(other.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodSpec;

    use super::*;

    #[test]
    fn depends_on_content_and_collisions_only() {
        let template = PodTemplateSpec {
            metadata: None,
            spec: Some(PodSpec { hostname: Some("a".into()), ..PodSpec::default() }),
        };
        let other = PodTemplateSpec {
            metadata: None,
            spec: Some(PodSpec { hostname: Some("b".into()), ..PodSpec::default() }),
        };
        assert_eq!(template_hash(&template, None), template_hash(&template.clone(), None));
        assert_ne!(template_hash(&template, None), template_hash(&other, None));
        assert_ne!(template_hash(&template, None), template_hash(&template, Some(1)));
    }
}
