//! Reads the generated table.
//!
//! A line without indent opens a type: `NAME [map-type=atomic]`. A line with one space of indent is a field of it:
//! `NAME KIND [required] [#NUMBER[.NUMBER]…] [go=TYPE] [omitempty] [default=JSON] [list-type=…] [list-map-keys=a,b]
//! [map-type=…] [patch-strategy=…] [patch-merge-key=…]`. A kind is a scalar's name, `list:KIND`, `map:KIND`,
//! `wrapped:KIND` (a list in a protobuf message of its own) or the name of a type. More than one number means that the
//! field lives in a message that JSON flattens.

use super::{Field, Kind, ListType, PatchStrategy, Schemas, Type, TypeId, Wire};
use crate::catalogue::Name;

/// Reads the table. What is malformed is left out; a test compares counts with the text.
pub(super) fn load(text: &'static str) -> Schemas {
    let mut schemas =
        Schemas { base: None, types: Vec::new(), by_name: Default::default(), docs: None, root: None };
    for line in text.lines().filter(|line| !line.starts_with(' ')) {
        let mut words = line.split(' ');
        let name = Name::Borrowed(words.next().unwrap_or_default());
        let atomic = words.any(|word| word == "map-type=atomic");
        schemas.by_name.insert(name.clone(), TypeId(schemas.types.len() as u32));
        schemas.types.push(Type { name, atomic, ..Type::default() });
    }
    let (mut current, mut texts) = (0usize, 0usize);
    let mut opened = false;
    for line in text.lines() {
        match line.strip_prefix(' ') {
            None => {
                current = if opened { current + 1 } else { 0 };
                opened = true;
                schemas.types[current].doc = texts;
            }
            Some(line) => {
                if let Some((field, numbers)) = field(&schemas, line) {
                    let at = schemas.types[current].fields.len();
                    if !numbers.is_empty() {
                        place(&mut schemas.types[current].wire, &numbers, at);
                    }
                    schemas.types[current].fields.push(field);
                }
            }
        }
        texts += 1;
    }
    schemas.types.iter_mut().for_each(|known| known.fields.shrink_to_fit());
    mark_defaults(&mut schemas);
    schemas
}

fn field(schemas: &Schemas, line: &'static str) -> Option<(Field, Vec<u32>)> {
    let mut words = line.split(' ');
    let name = Name::Borrowed(words.next()?);
    let kind = kind(schemas, words.next()?)?;
    let mut numbers = Vec::new();
    let mut field = Field {
        name,
        kind,
        go: Name::Borrowed(""),
        required: false,
        omitempty: false,
        list_type: ListType::Atomic,
        list_keys: Vec::new(),
        atomic_map: false,
        strategy: PatchStrategy::default(),
        merge_key: None,
        default: None,
    };
    for word in words {
        if let Some(path) = word.strip_prefix('#') {
            numbers = path.split('.').filter_map(|number| number.parse().ok()).collect();
            continue;
        }
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match (key, value) {
            ("required", _) => field.required = true,
            ("omitempty", _) => field.omitempty = true,
            ("go", go) => field.go = Name::Borrowed(go),
            ("default", json) => field.default = serde_json::from_str(json).ok(),
            ("list-type", "map") => field.list_type = ListType::Map,
            ("list-type", "set") => field.list_type = ListType::Set,
            ("list-map-keys", keys) => field.list_keys = keys.split(',').map(Name::Borrowed).collect(),
            ("map-type", "atomic") => field.atomic_map = true,
            ("patch-merge-key", key) => field.merge_key = Some(Name::Borrowed(key)),
            ("patch-strategy", words) => {
                for word in words.split(',') {
                    field.strategy.merge |= word == "merge";
                    field.strategy.retain_keys |= word == "retainKeys";
                    field.strategy.replace |= word == "replace";
                }
            }
            _ => {}
        }
    }
    if !field.pointer() && field.default.as_ref().is_some_and(|default| field.omits(default)) {
        field.default = None;
    }
    Some((field, numbers))
}

fn kind(schemas: &Schemas, word: &str) -> Option<Kind> {
    Some(match word.split_once(':') {
        Some(("list", inner)) => Kind::List(Box::new(kind(schemas, inner)?)),
        Some(("map", inner)) => Kind::Map(Box::new(kind(schemas, inner)?)),
        Some(("wrapped", inner)) => Kind::Wrapped(Box::new(kind(schemas, inner)?)),
        Some(_) => return None,
        None => match word {
            "string" => Kind::String,
            "int32" => Kind::Int32,
            "int64" => Kind::Int64,
            "bool" => Kind::Bool,
            "double" => Kind::Double,
            "bytes" => Kind::Bytes,
            "intstr" => Kind::IntOrString,
            "quantity" => Kind::Quantity,
            "time" => Kind::Time,
            "microtime" => Kind::MicroTime,
            "fields" => Kind::Fields,
            "raw" => Kind::Raw,
            name => Kind::Object(schemas.by_name(name)?),
        },
    })
}

/// Puts field `at` where its numbers lead.
fn place(wire: &mut Vec<(u32, Wire)>, numbers: &[u32], at: usize) {
    let Some((&first, rest)) = numbers.split_first() else { return };
    let slot = match wire.binary_search_by_key(&first, |(number, _)| *number) {
        Ok(slot) => slot,
        Err(slot) => {
            let entry = if rest.is_empty() { Wire::Field(at) } else { Wire::Inline(Vec::new()) };
            wire.insert(slot, (first, entry));
            slot
        }
    };
    if let (Wire::Inline(inner), false) = (&mut wire[slot].1, rest.is_empty()) {
        place(inner, rest, at);
    }
}

/// Marks the types that have defaults at or below them, until nothing changes.
fn mark_defaults(schemas: &mut Schemas) {
    loop {
        let marked: Vec<usize> = (0..schemas.types.len())
            .filter(|&at| {
                let declared = &schemas.types[at];
                !declared.defaults_below
                    && declared.fields.iter().any(|field| {
                        field.default.is_some()
                            || field.kind.object().is_some_and(|inner| schemas.get(inner).defaults_below)
                    })
            })
            .collect();
        if marked.is_empty() {
            return;
        }
        for at in marked {
            schemas.types[at].defaults_below = true;
        }
    }
}
