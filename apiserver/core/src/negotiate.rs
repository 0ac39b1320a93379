//! Reads the `Accept` header: which form of an answer the client can take.

use http::HeaderMap;

use crate::failure::{self, Refused};

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// The objects themselves.
    #[default]
    Plain,
    /// A table for people.
    Table,
    /// Metadata only.
    Partial,
    /// Aggregated discovery, version 2.
    DiscoveryV2,
    /// Aggregated discovery, version 2beta1.
    DiscoveryV2Beta1,
}

/// What was negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The form.
    pub form: Form,
    /// What it is written in.
    pub encoding: Encoding,
}

/// What an answer is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// JSON.
    #[default]
    Json,
    /// YAML.
    Yaml,
    /// Kubernetes' protobuf.
    Protobuf,
}

const OFFERED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// Picks the form that the client likes best of those served; `protobuf` says whether what is asked for has such a
/// form at all.
pub fn accept(headers: &HeaderMap, protobuf: bool) -> Result<Accepted, Refused> {
    let mut clauses: Vec<(u32, &str)> = headers
        .get_all(http::header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter(|clause| !clause.trim().is_empty())
        .map(|clause| (quality(clause), clause))
        .collect();
    if clauses.is_empty() {
        return Ok(Accepted::default());
    }
    // Stable: clauses of the same quality stay in the client's order.
    clauses.sort_by_key(|(quality, _)| std::cmp::Reverse(*quality));
    let served = |accepted: &Accepted| {
        accepted.encoding != Encoding::Protobuf || (protobuf && accepted.form != Form::Table)
    };
    let found = clauses
        .iter()
        .filter(|(quality, _)| *quality > 0)
        .find_map(|(_, clause)| form(clause).filter(served));
    found.ok_or_else(|| failure::not_acceptable(OFFERED))
}

fn quality(clause: &str) -> u32 {
    let q = param(clause, "q").and_then(|q| q.parse::<f32>().ok()).unwrap_or(1.0);
    (q.clamp(0.0, 1.0) * 1000.0) as u32
}

fn param<'a>(clause: &'a str, name: &str) -> Option<&'a str> {
    clause.split(';').skip(1).find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key.trim() == name).then(|| value.trim().trim_matches('"'))
    })
}

fn form(clause: &str) -> Option<Accepted> {
    let media = clause.split(';').next().unwrap_or_default().trim();
    let encoding = match media {
        "application/json" | "*/*" | "application/*" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        "application/vnd.kubernetes.protobuf" => Encoding::Protobuf,
        _ => return None,
    };
    let version = param(clause, "v").unwrap_or_default();
    let form = match (param(clause, "as"), param(clause, "g")) {
        (None, _) => Form::Plain,
        (Some("Table"), Some("meta.k8s.io")) if matches!(version, "v1" | "v1beta1") => Form::Table,
        (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io")) => Form::Partial,
        (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io")) if version == "v2" => Form::DiscoveryV2,
        (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io")) if version == "v2beta1" => {
            Form::DiscoveryV2Beta1
        }
        _ => return None,
    };
    Some(Accepted { form, encoding })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, expected: Option<Form>) {
        check_encoding(header, expected.map(|form| Accepted { form, encoding: Encoding::Json }), false);
    }

    fn check_encoding(header: &str, expected: Option<Accepted>, protobuf: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::ACCEPT, header.parse().expect("header"));
        assert_eq!(accept(&headers, protobuf).ok(), expected, "{header}");
    }

    #[test]
    fn protobuf_is_spoken_where_the_kind_has_it() {
        let accepted = |form, encoding| Some(Accepted { form, encoding });
        let both = "application/vnd.kubernetes.protobuf,application/json";
        check_encoding(both, accepted(Form::Plain, Encoding::Protobuf), true);
        check_encoding(both, accepted(Form::Plain, Encoding::Json), false);
        check_encoding(
            "application/vnd.kubernetes.protobuf;q=0.5,application/json",
            accepted(Form::Plain, Encoding::Json),
            true,
        );
        check_encoding(
            "application/vnd.kubernetes.protobuf;stream=watch",
            accepted(Form::Plain, Encoding::Protobuf),
            true,
        );
        check_encoding(
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
            accepted(Form::Partial, Encoding::Protobuf),
            true,
        );
        let table = "as=Table;v=v1;g=meta.k8s.io";
        check_encoding(
            &format!("application/vnd.kubernetes.protobuf;{table},application/json;{table}"),
            accepted(Form::Table, Encoding::Json),
            true,
        );
        check_encoding("application/json;q=0", None, true);
    }

    #[test]
    fn picks_what_the_client_likes_best() {
        check("application/json", Some(Form::Plain));
        check("*/*", Some(Form::Plain));
        check("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Some(Form::Table));
        check("application/vnd.kubernetes.protobuf,application/json", Some(Form::Plain));
        check("application/vnd.kubernetes.protobuf", None);
        check(
            "application/json;q=0.5,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
            Some(Form::Partial),
        );
        check("application/json;as=Unknown;g=x;v=v1,application/json", Some(Form::Plain));
        check(
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Some(Form::DiscoveryV2),
        );
        check("text/html", None);
    }
}
