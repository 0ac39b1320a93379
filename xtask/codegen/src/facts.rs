//! What is known of a field beyond its JSON schema.

use std::{collections::BTreeMap, process::Command};

use anyhow::Context as _;
use serde_json::Value;

/// Definitions whose messages have alternatives that the table has no words for: schemas within schemas.
const WITHOUT_PROTOBUF: &str = "io.k8s.apiextensions-apiserver.";

/// Fields that JSON flattens in types newer than the facts, and the struct that each holds.
const INLINED: [(&str, &str); 1] = [("deviceConfiguration", "DeviceConfiguration")];

/// The two fact files and the numbers of newer fields.
pub struct Facts {
    types: Value,
    merge: Value,
    newer: BTreeMap<(String, String), u32>,
}

/// A field as Go declares it.
pub struct GoField<'a> {
    pub facts: &'a Value,
    /// Numbers from the outer message to the field: more than one where structs are inlined.
    pub numbers: Option<Vec<u32>>,
}

impl Facts {
    pub fn read(api_types: &str, merge_metadata: &str) -> anyhow::Result<Self> {
        let read = |path: &str| -> anyhow::Result<Value> {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
            serde_json::from_str(&text).with_context(|| format!("cannot parse {path}"))
        };
        Ok(Self { types: read(api_types)?, merge: read(merge_metadata)?, newer: newer_numbers()? })
    }

    /// The Go facts of a field, looked for in inlined structs too.
    pub fn go(&self, definition: &str, field: &str) -> Option<GoField<'_>> {
        self.go_in(&self.types[type_key(definition)?], definition, field)
    }

    fn go_in(&self, fields: &Value, definition: &str, field: &str) -> Option<GoField<'_>> {
        let type_key = type_key(definition)?;
        let fields = self.types.get(&type_key).filter(|own| *own == fields).or(self.types.get(&type_key))?;
        if let Some(facts) = fields.get(field).filter(|facts| facts.get("inline").is_none()) {
            return Some(GoField { facts, numbers: number(facts).map(|number| vec![number]) });
        }
        for inlined in fields.as_object()?.values().filter(|facts| facts.get("inline").is_some()) {
            let name = inlined["go"].as_str()?.rsplit('.').next()?;
            let inner = match name {
                "TypeMeta" => "io.k8s.apimachinery.pkg.apis.meta.v1.TypeMeta".to_owned(),
                name => format!("{}.{name}", definition.rsplit_once('.')?.0),
            };
            if inner != definition
                && let Some(found) = self.go(&inner, field)
            {
                let outer = number(inlined);
                let numbers = outer.zip(found.numbers).map(|(outer, mut inner)| {
                    inner.insert(0, outer);
                    inner
                });
                return Some(GoField { facts: found.facts, numbers });
            }
        }
        None
    }

    /// The numbers from the outer message to a field that is newer than the facts.
    pub fn newer_numbers(&self, definition: &str, field: &str) -> Option<Vec<u32>> {
        if definition.starts_with(WITHOUT_PROTOBUF) {
            return None;
        }
        if let Some(number) = self.newer_number(definition, field) {
            return Some(vec![number]);
        }
        let package = definition.rsplit_once('.')?.0;
        INLINED.iter().find_map(|(outer, name)| {
            let inner = format!("{package}.{name}");
            Some(vec![self.newer_number(definition, outer)?, self.newer_number(&inner, field)?])
        })
    }

    /// The number of a field that is newer than the facts. A type that was promoted has the numbers that it had in
    /// the version before.
    fn newer_number(&self, definition: &str, field: &str) -> Option<u32> {
        let (package, name) = definition.rsplit_once('.')?;
        let (group, version) = package.rsplit_once('.')?;
        let field = snake(field);
        [version, "v1beta2", "v1beta1", "v1alpha3", "v1alpha2", "v1alpha1"].iter().find_map(|version| {
            let definition = format!("{group}.{version}.{name}").to_lowercase();
            self.newer.get(&(definition, field.clone())).copied()
        })
    }

    /// List type, merge key and the like of a field; `.` is the type itself.
    pub fn merge(&self, definition: &str, field: &str) -> &Value {
        &self.merge[definition][field]
    }
}

fn number(facts: &Value) -> Option<u32> {
    facts["number"].as_u64().and_then(|number| u32::try_from(number).ok())
}

/// `io.k8s.api.core.v1.Pod` as `api/core/v1.Pod`.
fn type_key(definition: &str) -> Option<String> {
    let rest = definition.strip_prefix("io.k8s.")?;
    let (package, name) = rest.rsplit_once('.')?;
    Some(format!("{}.{name}", package.replace('.', "/")))
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    let letters: Vec<char> = name.chars().collect();
    for (at, letter) in letters.iter().enumerate() {
        let after_lower = at > 0 && !letters[at - 1].is_ascii_uppercase();
        let before_lower = letters.get(at + 1).is_some_and(char::is_ascii_lowercase);
        if letter.is_ascii_uppercase() && at > 0 && (after_lower || before_lower) {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// Reads `#[prost(…, tag = "N")] pub name: …` of every struct in k8s-pb.
fn newer_numbers() -> anyhow::Result<BTreeMap<(String, String), u32>> {
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
        .args(["metadata", "--format-version=1", "--all-features", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata failed")?;
    let manifest = metadata["packages"]
        .as_array()
        .and_then(|packages| packages.iter().find(|package| package["name"] == "k8s-pb"))
        .and_then(|package| package["manifest_path"].as_str())
        .context("k8s-pb is not among the packages")?;
    let sources = std::path::Path::new(manifest).with_file_name("src");
    let mut numbers = BTreeMap::new();
    let mut folders = vec![sources.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let package = folder.strip_prefix(&sources)?.to_string_lossy().replace('/', ".");
                let package = package.replace('_', "-");
                read_numbers(&std::fs::read_to_string(&path)?, &format!("io.k8s.{package}"), &mut numbers);
            }
        }
    }
    Ok(numbers)
}

fn read_numbers(source: &str, package: &str, numbers: &mut BTreeMap<(String, String), u32>) {
    let (mut definition, mut tag) = (String::new(), None);
    for line in source.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            definition = format!("{package}.{}", rest.trim_end_matches(" {")).to_lowercase();
        } else if let Some((_, rest)) = line.split_once("tag = \"") {
            tag = rest.split('"').next().and_then(|number| number.parse().ok());
        } else if let Some((name, _)) = line.strip_prefix("pub ").and_then(|rest| rest.split_once(':')) {
            if let Some(tag) = tag.take() {
                numbers.insert((definition.clone(), name.trim_start_matches("r#").to_owned()), tag);
            }
        }
    }
}
