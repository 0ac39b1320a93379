//! Objects from files: which files, the documents in them, lists taken apart.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use client::core::object::{ObjectKey, Target};
use serde_json::Value;

use super::discovery::ApiResource;
use super::error::{Error, Result, message};
use super::session::{Session, text_at};
use super::yaml;

/// No file is larger than this.
const LIMIT: u64 = 64 << 20;

/// Which files.
#[derive(Args, Clone, Debug, Default)]
pub struct Files {
    /// Files or directories with manifests; - is standard input
    #[arg(short, long = "filename", value_name = "FILE", value_delimiter = ',')]
    pub filename: Vec<String>,
    /// Also the directories in directories
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

/// An object from a file.
#[derive(Clone, Debug)]
pub struct Document {
    /// The object.
    pub value: Value,
    /// The file, as errors name it.
    pub source: String,
}

/// A document whose resource is known.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The object, with its namespace.
    pub value: Value,
    /// The file.
    pub source: String,
    /// Its resource.
    pub api: ApiResource,
    /// Where it belongs.
    pub target: Target,
}

// === impl Files ===

impl Files {
    /// Whether no file was named.
    pub fn is_empty(&self) -> bool {
        self.filename.is_empty()
    }

    /// Fails unless a file was named.
    pub fn required(&self) -> Result<()> {
        if self.is_empty() { message("must specify one of -f and -k") } else { Ok(()) }
    }

    /// All objects of all files.
    pub fn read(&self) -> Result<Vec<Document>> {
        let mut documents = Vec::new();
        for name in &self.filename {
            if name == "-" {
                documents.append(&mut parse(&bounded(std::io::stdin().lock(), "STDIN")?, "STDIN")?);
                continue;
            }
            if name.starts_with("http://") || name.starts_with("https://") {
                return message(format!(
                    "{name}: manifests are read from files; fetch it first and pass it with -f -"
                ));
            }
            for path in self.paths(Path::new(name))? {
                let source = path.display().to_string();
                let file = std::fs::File::open(&path).map_err(|error| unreadable(&source, &error))?;
                documents.append(&mut parse(&bounded(file, &source)?, &source)?);
            }
        }
        if documents.is_empty() && !self.is_empty() {
            return message("no objects passed to apply");
        }
        Ok(documents)
    }

    fn paths(&self, root: &Path) -> Result<Vec<PathBuf>> {
        let source = root.display().to_string();
        let kind = std::fs::metadata(root).map_err(|error| unreadable(&source, &error))?;
        if !kind.is_dir() {
            return Ok(vec![root.to_owned()]);
        }
        let mut paths = Vec::new();
        let mut directories = vec![root.to_owned()];
        while let Some(directory) = directories.pop() {
            let name = directory.display().to_string();
            let mut entries: Vec<PathBuf> = std::fs::read_dir(&directory)
                .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
                .map_err(|error| unreadable(&name, &error))?;
            entries.sort();
            for path in entries {
                let extension = path.extension().and_then(|extension| extension.to_str());
                if path.is_dir() {
                    if self.recursive {
                        directories.push(path);
                    }
                } else if matches!(extension, Some("yaml" | "yml" | "json")) {
                    paths.push(path);
                }
            }
        }
        if paths.is_empty() {
            return message(format!(
                "error reading [{source}]: recognized file extensions are [.json .yaml .yml]"
            ));
        }
        paths.sort();
        Ok(paths)
    }
}

fn unreadable(source: &str, error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::Message(format!("the path \"{source}\" does not exist")),
        _ => Error::Message(format!("the path \"{source}\" cannot be accessed: {error}")),
    }
}

fn bounded(reader: impl std::io::Read, source: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(LIMIT + 1).read_to_end(&mut bytes).map_err(|error| unreadable(source, &error))?;
    if bytes.len() as u64 > LIMIT {
        return message(format!("{source}: larger than {} MiB", LIMIT >> 20));
    }
    Ok(bytes)
}

/// The objects of one file's text.
pub fn parse(bytes: &[u8], source: &str) -> Result<Vec<Document>> {
    let values =
        yaml::parse(bytes).map_err(|error| Error::Message(format!("error parsing {source}: {error}")))?;
    let mut documents = Vec::new();
    for value in values {
        take_apart(value, source, &mut documents)?;
    }
    Ok(documents)
}

/// Lists become their items.
fn take_apart(mut value: Value, source: &str, documents: &mut Vec<Document>) -> Result<()> {
    if !value.is_object() {
        return message(format!(
            "error parsing {source}: a document is not an object with apiVersion and kind"
        ));
    }
    let kind = text_at(&value, "/kind").to_owned();
    if kind.is_empty() {
        return message(format!("error validating \"{source}\": error validating data: kind not set"));
    }
    if text_at(&value, "/apiVersion").is_empty() {
        return message(format!("error validating \"{source}\": error validating data: apiVersion not set"));
    }
    if kind.ends_with("List")
        && let Some(Value::Array(items)) = value.get_mut("items").map(Value::take)
    {
        return items.into_iter().try_for_each(|item| take_apart(item, source, documents));
    }
    documents.push(Document { value, source: source.to_owned() });
    Ok(())
}

/// Finds the resource of each document and puts it into its namespace.
pub async fn resolve(session: &Session, documents: Vec<Document>) -> Result<Vec<Resolved>> {
    let discovery = session.discovery().await?;
    documents
        .into_iter()
        .map(|Document { mut value, source }| {
            let (version, kind) = (text_at(&value, "/apiVersion"), text_at(&value, "/kind"));
            let name = text_at(&value, "/metadata/name").to_owned();
            let namespace = text_at(&value, "/metadata/namespace").to_owned();
            let Some(api) = discovery.by_kind(version, kind).cloned() else {
                return message(format!(
                    "resource mapping not found for name: \"{name}\" namespace: \"{namespace}\" from \"{source}\": no matches for kind \"{kind}\" in version \"{version}\"\nensure CRDs are installed first"
                ));
            };
            let namespace = placed(session, &api, &namespace)?;
            if !namespace.is_empty()
                && let Some(Value::Object(metadata)) = value.get_mut("metadata")
            {
                metadata.insert("namespace".to_owned(), Value::String(namespace.clone()));
            }
            let target = Target { resource: api.resource.clone(), key: ObjectKey::new(&*namespace, &*name) };
            Ok(Resolved { value, source, api, target })
        })
        .collect()
}

fn placed(session: &Session, api: &ApiResource, namespace: &str) -> Result<String> {
    match (api.resource.namespaced, namespace) {
        (false, _) => Ok(String::new()),
        (true, "") => Ok(session.namespace.clone()),
        (true, own) if session.namespace_given && own != session.namespace => message(format!(
            "the namespace from the provided object \"{own}\" does not match the namespace \"{}\". You must pass '--namespace={own}' to perform this operation.",
            session.namespace
        )),
        (true, own) => Ok(own.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents() {
        let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}\n- {apiVersion: v1, kind: Pod, metadata: {name: b}}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: c}\n";
        let found = parse(text.as_bytes(), "f").expect("documents");
        let names: Vec<_> = found.iter().map(|document| text_at(&document.value, "/metadata/name")).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    fn check(text: &str, expected: &str) {
        let error = parse(text.as_bytes(), "f.yaml").expect_err("an error");
        assert_eq!(error.lines().join("\n").split(": ").take(4).collect::<Vec<_>>().join(": "), expected);
    }

    #[test]
    fn errors() {
        check("a: 1\n", "error: error validating \"f.yaml\": error validating data: kind not set");
        check("kind: Pod\n", "error: error validating \"f.yaml\": error validating data: apiVersion not set");
        check("- 1\n", "error: error parsing f.yaml: a document is not an object with apiVersion and kind");
        let text = parse(b"kind: Pod\n\tx: 1\n", "f.yaml").expect_err("a tab").lines().join("");
        assert!(text.starts_with("error: error parsing f.yaml: line 1, column 7: "), "{text}");
    }
}
