//! Objects from flags: the common kinds.

use std::collections::BTreeMap;
use std::path::Path;

use clap::{Args, Subcommand};
use client::core::object::ResourceType;
use serde_json::{Map, Value, json};

use crate::verbs::apply::say;
use crate::verbs::error::{Error, Result, message};
use crate::verbs::session::{Session, text_at};

/// No single value is larger than a config map may be.
const LIMIT: u64 = 1 << 20;

/// A deployment of one or more images.
#[derive(Args, Debug)]
pub struct Deployment {
    /// Its name
    name: String,
    /// Image of a container; may be given several times
    #[arg(long, required = true)]
    image: Vec<String>,
    /// How many pods
    #[arg(short, long, default_value_t = 1)]
    replicas: i32,
    /// A port that the container listens on
    #[arg(long)]
    port: Option<i32>,
    /// The command, after --
    #[arg(last = true)]
    command: Vec<String>,
}

/// A config map.
#[derive(Args, Debug)]
pub struct ConfigMap {
    /// Its name
    name: String,
    #[command(flatten)]
    data: Data,
}

/// Where values come from.
#[derive(Args, Debug)]
pub struct Data {
    /// KEY=VALUE
    #[arg(long)]
    from_literal: Vec<String>,
    /// FILE, KEY=FILE or DIRECTORY
    #[arg(long)]
    from_file: Vec<String>,
    /// A file of KEY=VALUE lines
    #[arg(long)]
    from_env_file: Vec<String>,
}

/// A secret.
#[derive(Subcommand, Debug)]
pub enum Secret {
    /// Create a secret from files, directories or literals
    Generic {
        /// Its name
        name: String,
        /// Its type
        #[arg(long = "type")]
        kind: Option<String>,
        #[command(flatten)]
        data: Data,
    },
    /// Create a secret from a key pair
    Tls {
        /// Its name
        name: String,
        /// Path to the certificate
        #[arg(long)]
        cert: String,
        /// Path to the key
        #[arg(long)]
        key: String,
    },
    /// Create a secret for a registry
    DockerRegistry {
        /// Its name
        name: String,
        /// The registry
        #[arg(long, default_value = "https://index.docker.io/v1/")]
        docker_server: String,
        /// The user
        #[arg(long)]
        docker_username: String,
        /// The password
        #[arg(long)]
        docker_password: String,
        /// The mail address
        #[arg(long)]
        docker_email: Option<String>,
    },
}

/// A service.
#[derive(Subcommand, Debug)]
pub enum Service {
    /// Create a ClusterIP service
    Clusterip {
        /// Its name
        name: String,
        /// PORT or PORT:TARGET
        #[arg(long, value_delimiter = ',')]
        tcp: Vec<String>,
        /// Its address, or None
        #[arg(long)]
        clusterip: Option<String>,
    },
    /// Create a NodePort service
    Nodeport {
        /// Its name
        name: String,
        /// PORT or PORT:TARGET
        #[arg(long, value_delimiter = ',')]
        tcp: Vec<String>,
        /// The port on the nodes
        #[arg(long)]
        node_port: Option<i32>,
    },
    /// Create a LoadBalancer service
    Loadbalancer {
        /// Its name
        name: String,
        /// PORT or PORT:TARGET
        #[arg(long, value_delimiter = ',')]
        tcp: Vec<String>,
    },
    /// Create an ExternalName service
    Externalname {
        /// Its name
        name: String,
        /// The name that it stands for
        #[arg(long)]
        external_name: String,
        /// PORT or PORT:TARGET
        #[arg(long, value_delimiter = ',')]
        tcp: Vec<String>,
    },
}

/// A priority class.
#[derive(Args, Debug)]
pub struct PriorityClass {
    /// Its name
    name: String,
    /// The priority
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    value: i32,
    /// For pods that name none
    #[arg(long)]
    global_default: bool,
    /// What it is for
    #[arg(long, default_value = "")]
    description: String,
}

/// A token of a service account.
#[derive(Args, Debug)]
pub struct Token {
    /// The service account
    name: String,
    /// Who will read the token; may be given several times
    #[arg(long)]
    audience: Vec<String>,
    /// How long it is good for
    #[arg(long, value_parser = crate::verbs::watching::duration)]
    duration: Option<std::time::Duration>,
}

/// An object with a name and nothing else.
pub fn plain(api_version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}})
}

// === impl Deployment ===

impl Deployment {
    /// The object.
    pub fn object(&self) -> Value {
        let several = self.image.len() > 1;
        let containers = self.image.iter().map(|image| {
            let base = image.rsplit('/').next().unwrap_or(image);
            let base = base.split(['@', ':']).next().unwrap_or(base).replace('_', "-").to_lowercase();
            let mut container = json!({"image": image, "name": base, "resources": {}});
            if let (Some(port), false) = (self.port, several) {
                container["ports"] = json!([{"containerPort": port}]);
            }
            if !self.command.is_empty() && !several {
                container["command"] = json!(self.command);
            }
            container
        });
        let containers: Vec<Value> = containers.collect();
        let labels = json!({"app": self.name});
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": self.name, "labels": labels},
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": labels},
                "strategy": {},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
            },
        })
    }
}

// === impl Data ===

impl Data {
    fn read(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut data = BTreeMap::new();
        let mut add = |key: &str, bytes: Vec<u8>| match data.insert(key.to_owned(), bytes) {
            None => Ok(()),
            Some(_) => message(format!("cannot add key {key}, another key by that name already exists")),
        };
        for literal in &self.from_literal {
            let Some((key, value)) = literal.split_once('=') else {
                return message(format!("invalid literal source {literal}, expected key=value"));
            };
            add(key, value.as_bytes().to_vec())?;
        }
        for source in &self.from_file {
            let (key, path) = match source.split_once('=') {
                Some((key, path)) if !key.is_empty() => (Some(key), path),
                Some(_) => {
                    return message(format!(
                        "key name for file path {} missing",
                        source.trim_start_matches('=')
                    ));
                }
                None => (None, source.as_str()),
            };
            for (name, path) in files(Path::new(path), key)? {
                add(&name, read(&path)?)?;
            }
        }
        for path in &self.from_env_file {
            let text = String::from_utf8_lossy(&read(Path::new(path))?).into_owned();
            for line in
                text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'))
            {
                match line.split_once('=') {
                    Some((key, value)) => add(key, value.as_bytes().to_vec())?,
                    None => add(line, std::env::var(line).unwrap_or_default().into_bytes())?,
                }
            }
        }
        for key in data.keys() {
            if !api::name::config_map_key(key).is_empty() {
                return message(format!(
                    "\"{key}\" is not a valid key name: {}",
                    api::name::config_map_key(key).join("; ")
                ));
            }
        }
        Ok(data)
    }
}

fn files(path: &Path, key: Option<&str>) -> Result<Vec<(String, std::path::PathBuf)>> {
    let unreadable =
        |error: std::io::Error| Error::Message(format!("error reading {}: {error}", path.display()));
    let name_of =
        |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(vec![(key.map_or_else(|| name_of(path), str::to_owned), path.to_owned())]);
    }
    if key.is_some() {
        return message("cannot give a key name for a directory path");
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_file() {
            found.push((name_of(&path), path));
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path);
    file.and_then(|file| file.take(LIMIT + 1).read_to_end(&mut bytes))
        .map_err(|error| Error::Message(format!("error reading {}: {error}", path.display())))?;
    if bytes.len() as u64 > LIMIT {
        return message(format!("{}: larger than 1 MiB", path.display()));
    }
    Ok(bytes)
}

// === impl ConfigMap ===

impl ConfigMap {
    /// The object.
    pub fn object(&self) -> Result<Value> {
        let mut object = plain("v1", "ConfigMap", &self.name);
        let (mut text, mut binary) = (Map::new(), Map::new());
        for (key, bytes) in self.data.read()? {
            match String::from_utf8(bytes) {
                Ok(value) => text.insert(key, Value::String(value)),
                Err(error) => binary.insert(key, Value::String(base64(error.as_bytes()))),
            };
        }
        if let Value::Object(map) = &mut object {
            if !text.is_empty() {
                map.insert("data".to_owned(), Value::Object(text));
            }
            if !binary.is_empty() {
                map.insert("binaryData".to_owned(), Value::Object(binary));
            }
        }
        Ok(object)
    }
}

// === impl Secret ===

impl Secret {
    /// The object.
    pub fn object(&self) -> Result<Value> {
        let (name, kind, data) = match self {
            Self::Generic { name, kind, data } => (name, kind.clone(), data.read()?),
            Self::Tls { name, cert, key } => {
                let data = BTreeMap::from([
                    ("tls.crt".to_owned(), read(Path::new(cert))?),
                    ("tls.key".to_owned(), read(Path::new(key))?),
                ]);
                (name, Some("kubernetes.io/tls".to_owned()), data)
            }
            Self::DockerRegistry { name, docker_server, docker_username, docker_password, docker_email } => {
                let mut entry = json!({
                    "username": docker_username,
                    "password": docker_password,
                    "auth": base64(format!("{docker_username}:{docker_password}").as_bytes()),
                });
                if let Some(email) = docker_email {
                    entry["email"] = json!(email);
                }
                let text = json!({"auths": {docker_server: entry}}).to_string();
                let data = BTreeMap::from([(".dockerconfigjson".to_owned(), text.into_bytes())]);
                (name, Some("kubernetes.io/dockerconfigjson".to_owned()), data)
            }
        };
        let mut object = plain("v1", "Secret", name);
        if let Value::Object(map) = &mut object {
            if !data.is_empty() {
                let data: Map<String, Value> =
                    data.into_iter().map(|(key, bytes)| (key, Value::String(base64(&bytes)))).collect();
                map.insert("data".to_owned(), Value::Object(data));
            }
            if let Some(kind) = kind {
                map.insert("type".to_owned(), Value::String(kind));
            }
        }
        Ok(object)
    }
}

/// Bytes as base64, as JSON carries them.
pub fn base64(bytes: &[u8]) -> String {
    let bytes = k8s_openapi::ByteString(bytes.to_vec());
    serde_json::to_value(bytes).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

// === impl Service ===

impl Service {
    /// The object.
    pub fn object(&self) -> Result<Value> {
        let (name, kind, tcp) = match self {
            Self::Clusterip { name, tcp, .. } => (name, "ClusterIP", tcp),
            Self::Nodeport { name, tcp, .. } => (name, "NodePort", tcp),
            Self::Loadbalancer { name, tcp } => (name, "LoadBalancer", tcp),
            Self::Externalname { name, tcp, .. } => (name, "ExternalName", tcp),
        };
        let headless = matches!(self, Self::Clusterip { clusterip: Some(ip), .. } if ip == "None");
        if tcp.is_empty() && !headless && kind != "ExternalName" {
            return message("at least one tcp port specifier must be provided");
        }
        let ports: Vec<Value> = tcp.iter().map(|text| service_port(text)).collect::<Result<_>>()?;
        let labels = json!({"app": name});
        let mut spec = json!({"type": kind, "selector": labels});
        if !ports.is_empty() {
            spec["ports"] = Value::Array(ports);
        }
        match self {
            Self::Clusterip { clusterip: Some(ip), .. } => spec["clusterIP"] = json!(ip),
            Self::Nodeport { node_port: Some(port), .. } => spec["ports"][0]["nodePort"] = json!(port),
            Self::Externalname { external_name, .. } => spec["externalName"] = json!(external_name),
            _ => {}
        }
        Ok(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": labels}, "spec": spec}),
        )
    }
}

fn service_port(text: &str) -> Result<Value> {
    let (port, target) = text.split_once(':').unwrap_or((text, text));
    let Ok(number) = port.parse::<u16>() else {
        return message(format!("invalid port specifier {text:?}: expected PORT or PORT:TARGET"));
    };
    let target_port = target.parse::<u16>().map_or_else(|_| json!(target), |number| json!(number));
    let name = text.replace(':', "-");
    Ok(json!({"name": name, "port": number, "protocol": "TCP", "targetPort": target_port}))
}

// === impl PriorityClass ===

impl PriorityClass {
    /// The object.
    pub fn object(&self) -> Value {
        let mut object = plain("scheduling.k8s.io/v1", "PriorityClass", &self.name);
        object["value"] = json!(self.value);
        object["preemptionPolicy"] = json!("PreemptLowerPriority");
        if self.global_default {
            object["globalDefault"] = json!(true);
        }
        if !self.description.is_empty() {
            object["description"] = json!(self.description);
        }
        object
    }
}

/// Asks for a token and prints it.
pub async fn token(session: &Session, arguments: &Token) -> Result<()> {
    let mut spec = Map::new();
    if !arguments.audience.is_empty() {
        spec.insert("audiences".to_owned(), json!(arguments.audience));
    }
    if let Some(duration) = arguments.duration {
        spec.insert("expirationSeconds".to_owned(), json!(duration.as_secs()));
    }
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let accounts = ResourceType::new("", "v1", "ServiceAccount", "serviceaccounts", true);
    let path = accounts.object_path(Some(&session.namespace), &arguments.name, Some("token"));
    let body = serde_json::to_vec(&request).map_err(std::io::Error::from)?;
    let request = client::Client::build_with(http::Method::POST, &path, "application/json", body)?;
    let answer: Value =
        session.client.request(request).await.map_err(|error| session.refused(error.into()))?;
    say(text_at(&answer, "/status/token"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployments() {
        let deployment = Deployment {
            name: "web".to_owned(),
            image: vec!["registry:5000/a/nginx_x:1.27".to_owned()],
            replicas: 2,
            port: Some(80),
            command: vec!["sleep".to_owned(), "1".to_owned()],
        };
        let object = deployment.object();
        assert_eq!(
            object["spec"]["template"]["spec"]["containers"][0],
            json!({"image": "registry:5000/a/nginx_x:1.27", "name": "nginx-x", "resources": {}, "ports": [{"containerPort": 80}], "command": ["sleep", "1"]})
        );
    }

    #[test]
    fn ports() {
        assert_eq!(
            service_port("80").expect("a port"),
            json!({"name": "80", "port": 80, "protocol": "TCP", "targetPort": 80})
        );
        assert_eq!(
            service_port("80:http").expect("a port"),
            json!({"name": "80-http", "port": 80, "protocol": "TCP", "targetPort": "http"})
        );
        service_port("x").expect_err("no port");
    }

    #[test]
    fn literals() {
        let data = |literals: &[&str]| Data {
            from_literal: literals.iter().map(|text| (*text).to_owned()).collect(),
            from_file: Vec::new(),
            from_env_file: Vec::new(),
        };
        let map = ConfigMap { name: "c".to_owned(), data: data(&["a=1", "b=x=y"]) };
        assert_eq!(map.object().expect("a map")["data"], json!({"a": "1", "b": "x=y"}));
        let secret = Secret::Generic { name: "s".to_owned(), kind: None, data: data(&["a=1"]) };
        assert_eq!(secret.object().expect("a secret")["data"], json!({"a": "MQ=="}));
        data(&["a"]).read().expect_err("no value");
        data(&["a=1", "a=2"]).read().expect_err("twice");
    }
}
