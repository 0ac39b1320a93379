//! Named forms of texts, and what is wrong with a text that has another.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::value::{Answer, Fault, Value};
use super::url::Url;
use super::{Cost, ONE, Opaque, Row, conversions, opaque, text};
use crate::name;
use crate::schema::structural::has_format;

/// A named form.
#[derive(Debug)]
pub struct Format {
    pub(super) name: &'static str,
    /// What is wrong with a text; nothing if it is as it should be.
    check: fn(&str) -> Vec<String>,
}

const FORMATS: &[Format] = &[
    Format { name: "dns1123Label", check: name::dns1123_label },
    Format { name: "dns1123Subdomain", check: name::dns1123_subdomain },
    Format { name: "dns1035Label", check: name::dns1035_label },
    Format { name: "qualifiedName", check: name::qualified_name },
    Format { name: "dns1123LabelPrefix", check: |text| name::dns1123_label(&whole(text)) },
    Format { name: "dns1123SubdomainPrefix", check: |text| name::dns1123_subdomain(&whole(text)) },
    Format { name: "dns1035LabelPrefix", check: |text| name::dns1035_label(&whole(text)) },
    Format { name: "labelValue", check: name::label_value },
    Format { name: "uri", check: |text| Url::parse(text).err().into_iter().collect() },
    Format { name: "uuid", check: |text| unless(has_format("uuid", text), "does not match the UUID format") },
    Format { name: "byte", check: |text| unless(STANDARD.decode(text).is_ok(), "invalid base64") },
    Format { name: "date", check: |text| unless(has_format("date", text), "invalid date") },
    Format {
        name: "datetime",
        check: |text| unless(conversions::timestamp(text).is_some(), "invalid datetime"),
    },
];

pub(super) const ROWS: &[Row] = &[
    ("format.named(string) optional<Format>", ONE, |a| {
        let wanted = text(&a[0])?;
        let found = FORMATS.iter().find(|format| format.name == wanted);
        Ok(found.map_or(Value::Optional(None), |format| Value::some(Value::Opaque(Opaque::Format(format)))))
    }),
    ("Format.validate(string) optional<list<string>>", Cost::Letters { of: 1, times: 30.0 }, |a| {
        let Opaque::Format(format) = opaque(&a[0])? else { return Err(Fault::NoOverload) };
        let faults = (format.check)(text(&a[1])?);
        Ok(match faults.is_empty() {
            true => Value::Optional(None),
            false => Value::some(Value::list(faults.into_iter().map(Value::text).collect())),
        })
    }),
    ("format.dns1123Label() Format", ONE, |_| of(0)),
    ("format.dns1123Subdomain() Format", ONE, |_| of(1)),
    ("format.dns1035Label() Format", ONE, |_| of(2)),
    ("format.qualifiedName() Format", ONE, |_| of(3)),
    ("format.dns1123LabelPrefix() Format", ONE, |_| of(4)),
    ("format.dns1123SubdomainPrefix() Format", ONE, |_| of(5)),
    ("format.dns1035LabelPrefix() Format", ONE, |_| of(6)),
    ("format.labelValue() Format", ONE, |_| of(7)),
    ("format.uri() Format", ONE, |_| of(8)),
    ("format.uuid() Format", ONE, |_| of(9)),
    ("format.byte() Format", ONE, |_| of(10)),
    ("format.date() Format", ONE, |_| of(11)),
    ("format.datetime() Format", ONE, |_| of(12)),
];

fn of<'a>(at: usize) -> Answer<'a> {
    Ok(Value::Opaque(Opaque::Format(&FORMATS[at])))
}

/// A name of which this is the beginning.
fn whole(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => prefix.to_owned(),
    }
}

fn unless(fits: bool, fault: &str) -> Vec<String> {
    if fits { Vec::new() } else { vec![fault.to_owned()] }
}
