//! The grammars of names, and names made up by the server. Each check answers with the reasons against a name, in the
//! words that Kubernetes uses.

use rand::Rng;

/// Longest DNS label.
pub const LABEL_MAX: usize = 63;
/// Longest DNS subdomain.
pub const SUBDOMAIN_MAX: usize = 253;

const LABEL_WORDS: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_WORDS: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035_WORDS: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_WORDS: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE_WORDS: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const ENV_WORDS: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";
const CONFIG_KEY_WORDS: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// The words for a name that is too long.
pub fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn bounded(text: &str, max: usize, good: bool, words: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    if text.len() > max {
        reasons.push(too_long(max));
    }
    if !good {
        reasons.push(words.to_owned());
    }
    reasons
}

fn lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn label_shape(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().all(|&byte| lower(byte) || byte == b'-')
        && bytes.first().is_some_and(|&byte| lower(byte))
        && bytes.last().is_some_and(|&byte| lower(byte))
}

fn word_shape(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

/// A DNS label: names of namespaces, containers, ports of volumes.
pub fn dns1123_label(text: &str) -> Vec<String> {
    bounded(text, LABEL_MAX, label_shape(text), LABEL_WORDS)
}

/// A DNS subdomain: names of most objects.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    bounded(text, SUBDOMAIN_MAX, text.split('.').all(label_shape), SUBDOMAIN_WORDS)
}

/// A DNS label that starts with a letter: names of Services.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let good = label_shape(text) && text.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
    bounded(text, LABEL_MAX, good, LABEL_1035_WORDS)
}

/// A key of labels, annotations, taints, extended resources: `[subdomain/]name`.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            let words = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a qualified name {QUALIFIED_WORDS} {words}")];
        }
        Some(("", name)) => {
            reasons.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            reasons
                .extend(dns1123_subdomain(prefix).into_iter().map(|reason| format!("prefix part {reason}")));
            name
        }
    };
    if name.is_empty() {
        reasons.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        reasons.push(format!("name part {}", too_long(LABEL_MAX)));
    }
    if !word_shape(name) {
        reasons.push(format!("name part {QUALIFIED_WORDS}"));
    }
    reasons
}

/// The value of a label.
pub fn label_value(text: &str) -> Vec<String> {
    bounded(text, LABEL_MAX, text.is_empty() || word_shape(text), LABEL_VALUE_WORDS)
}

/// The name of an environment variable.
pub fn env_var_name(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec!["environment variable name must not be empty".to_owned()];
    }
    let good = text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=');
    bounded(text, usize::MAX, good, ENV_WORDS)
}

/// A key of a ConfigMap or Secret.
pub fn config_map_key(text: &str) -> Vec<String> {
    let shape = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let mut reasons =
        bounded(text, SUBDOMAIN_MAX, !text.is_empty() && text.bytes().all(shape), CONFIG_KEY_WORDS);
    match text {
        "." => reasons.push("must not be '.'".to_owned()),
        ".." => reasons.push("must not be '..'".to_owned()),
        text if text.starts_with("..") => reasons.push("must not start with '..'".to_owned()),
        _ => {}
    }
    reasons
}

/// The name of a port.
pub fn port_name(text: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut add = |bad: bool, words: &str| {
        if bad {
            reasons.push(words.to_owned());
        }
    };
    add(text.len() > 15, "must be no more than 15 bytes");
    let known = text.bytes().all(|byte| lower(byte) || byte == b'-') && !text.is_empty();
    add(!known, "must contain only alphanumeric characters (a-z, 0-9), and hyphens ('-')");
    add(!text.bytes().any(|byte| byte.is_ascii_lowercase()), "must contain at least one letter (a-z)");
    add(text.contains("--"), "must not contain consecutive hyphens");
    add(text.starts_with('-') || text.ends_with('-'), "must not begin or end with a hyphen");
    reasons
}

/// A name that is one segment of a path: RBAC objects.
pub fn path_segment(text: &str) -> Vec<String> {
    match text {
        "." => return vec!["may not be '.'".to_owned()],
        ".." => return vec!["may not be '..'".to_owned()],
        _ => {}
    }
    ['/', '%']
        .iter()
        .filter(|letter| text.contains(**letter))
        .map(|letter| format!("may not contain '{letter}'"))
        .collect()
}

/// Whether a name is a DNS label.
pub fn is_dns1123_label(text: &str) -> bool {
    text.len() <= LABEL_MAX && label_shape(text)
}

/// Whether a name is a DNS subdomain.
pub fn is_dns1123_subdomain(text: &str) -> bool {
    text.len() <= SUBDOMAIN_MAX && text.split('.').all(label_shape)
}

/// Whether a name is a DNS label that starts with a letter.
pub fn is_dns1035_label(text: &str) -> bool {
    dns1035_label(text).is_empty()
}

/// Whether a key is a qualified name.
pub fn is_qualified_name(text: &str) -> bool {
    qualified_name(text).is_empty()
}

/// Whether a value is a label's.
pub fn is_label_value(text: &str) -> bool {
    text.len() <= LABEL_MAX && (text.is_empty() || word_shape(text))
}

/// Letters that make no words and are not mistaken for each other.
const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX: usize = 5;

/// `base` and five random letters; a long base is cut so that the name stays a label.
pub fn generate_name(base: &str, rng: &mut (impl Rng + ?Sized)) -> String {
    let mut end = base.len().min(LABEL_MAX - SUFFIX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = String::with_capacity(end + SUFFIX);
    name.push_str(&base[..end]);
    name.extend((0..SUFFIX).map(|_| char::from(SAFE[rng.random_range(0..SAFE.len())])));
    name
}

/// The letters of the safe alphabet that stand for the digits of a number, as in a ReplicaSet's hash.
pub fn safe_encode(text: &str) -> String {
    text.bytes().map(|byte| char::from(SAFE[usize::from(byte) % SAFE.len()])).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn tells_names_from_others() {
        assert!(dns1123_subdomain("web.example-1").is_empty());
        assert_eq!(dns1123_subdomain("Web").len(), 1);
        assert_eq!(dns1123_label(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert!(!is_dns1035_label("1abc"));
        assert!(qualified_name("example.com/My_name").is_empty());
        assert_eq!(qualified_name("/x"), ["prefix part must be non-empty"]);
        assert!(qualified_name("a/b/c")[0].starts_with("a qualified name must"));
        assert!(label_value("").is_empty());
        assert_eq!(label_value("-x").len(), 1);
        assert!(config_map_key("a.b_c").is_empty());
        assert_eq!(config_map_key("../x").len(), 2);
        assert_eq!(port_name("-").len(), 2);
        assert_eq!(path_segment("a/b%"), ["may not contain '/'", "may not contain '%'"]);
    }

    #[test]
    fn generated_names_stay_labels() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let name = generate_name(&format!("{}-", "x".repeat(80)), &mut rng);
        assert_eq!(name.len(), LABEL_MAX);
        assert!(is_dns1123_label(&name));
        assert_eq!(generate_name("web-", &mut rng).len(), 9);
    }
}
