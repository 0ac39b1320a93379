//! Which objects a verb is about: `TYPE NAME…`, `TYPE/NAME…`, files, labels.

use clap::Args;
use client::core::object::Target;
use client::core::plan::PatchKind;
use client::params::{ListParams, Patch, WriteParams};
use serde_json::Value;

use super::discovery::{ApiResource, Discovery};
use super::error::{Result, message};
use super::manifest::{self, Files};
use super::session::{Session, text_at};

/// How many objects one page of a list has.
pub const PAGE: u32 = 500;

/// The objects of a verb that works on those that exist.
#[derive(Args, Clone, Debug, Default)]
pub struct Selection {
    /// TYPE NAME…, TYPE/NAME…
    #[arg(value_name = "TYPE/NAME")]
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Files,
    /// Only objects with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Only objects with these fields
    #[arg(long, value_name = "SELECTOR")]
    pub field_selector: Option<String>,
    /// All objects of the type
    #[arg(long)]
    pub all: bool,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

/// What the words on the command line name.
#[derive(Clone, Debug, PartialEq)]
pub enum Words {
    /// Types, without names.
    Types(Vec<ApiResource>),
    /// Objects by name.
    Names(Vec<(ApiResource, String)>),
}

/// An object that exists.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its resource.
    pub api: ApiResource,
    /// Its place.
    pub target: Target,
    /// The object.
    pub value: Value,
}

/// Reads words as kubectl does.
pub fn read_words(discovery: &Discovery, words: &[String]) -> Result<Words> {
    let Some((first, rest)) = words.split_first() else {
        return message(
            "You must specify the type of resource to get. Use \"orlop api-resources\" for a complete list of supported resources.",
        );
    };
    if words.iter().any(|word| word.contains('/')) {
        let pairs = words.iter().map(|word| match word.split_once('/') {
            Some((kind, name)) if !kind.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok((discovery.find(kind)?.clone(), name.to_owned()))
            }
            Some(_) => message("arguments in resource/name form must have a single resource and name"),
            None => message(
                "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'orlop get resource/<resource_name>' instead of 'orlop get resource resource/<resource_name>'",
            ),
        });
        return pairs.collect::<Result<_>>().map(Words::Names);
    }
    let types: Vec<ApiResource> = discovery.find_all(first)?.into_iter().cloned().collect();
    if rest.is_empty() {
        return Ok(Words::Types(types));
    }
    let pairs = types.iter().flat_map(|api| rest.iter().map(|name| (api.clone(), name.clone())));
    Ok(Words::Names(pairs.collect()))
}

// === impl Selection ===

impl Selection {
    /// Whether nothing was named.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty() && self.files.is_empty()
    }

    /// The parameters of a list.
    pub fn params(&self) -> ListParams {
        ListParams {
            label_selector: self.selector.clone(),
            field_selector: self.field_selector.clone(),
            limit: Some(PAGE),
            ..ListParams::default()
        }
    }

    /// The places of all objects that are named, without asking whether they exist; those that are selected are listed.
    pub async fn targets(&self, session: &Session) -> Result<Vec<(ApiResource, Target)>> {
        if !self.files.is_empty() {
            let resolved = manifest::resolve(session, self.files.read()?).await?;
            return Ok(resolved.into_iter().map(|one| (one.api, one.target)).collect());
        }
        match read_words(session.discovery().await?, &self.words)? {
            Words::Names(_) if self.selector.is_some() || self.field_selector.is_some() => {
                message("name cannot be provided when a selector is specified")
            }
            Words::Names(_) if self.all => {
                message("setting 'all' parameter but found a non empty selector. ")
            }
            Words::Names(pairs) => Ok(pairs
                .into_iter()
                .map(|(api, name)| {
                    let target = session.target(&api, &name);
                    (api, target)
                })
                .collect()),
            Words::Types(types) => {
                self.must_select()?;
                let mut targets = Vec::new();
                for api in types {
                    self.each(session, &api, |target, _| {
                        targets.push((api.clone(), target));
                        Ok(())
                    })
                    .await?;
                }
                Ok(targets)
            }
        }
    }

    /// All objects, read from the server.
    pub async fn find(&self, session: &Session) -> Result<Vec<Found>> {
        if self.files.is_empty()
            && let Words::Types(types) = read_words(session.discovery().await?, &self.words)?
        {
            self.must_select()?;
            let mut found = Vec::new();
            for api in types {
                self.each(session, &api, |target, value| {
                    found.push(Found { api: api.clone(), target, value });
                    Ok(())
                })
                .await?;
            }
            return Ok(found);
        }
        let mut found = Vec::new();
        for (api, target) in self.targets(session).await? {
            let value = session.client.get_object(&target).await?;
            found.push(Found { api, target, value });
        }
        Ok(found)
    }

    fn must_select(&self) -> Result<()> {
        if self.selector.is_some() || self.field_selector.is_some() || self.all {
            return Ok(());
        }
        message("resource(s) were provided, but no name was specified")
    }

    /// Calls back for each object of a type that is selected, page by page.
    async fn each(
        &self,
        session: &Session,
        api: &ApiResource,
        mut take: impl FnMut(Target, Value) -> Result<()>,
    ) -> Result<()> {
        each(session, api, session.scope(self.all_namespaces), self.params(), |value| {
            let target = target_of(api, &value);
            take(target, value)
        })
        .await
    }
}

/// Calls back for each object of a list, page by page; items get the kind that lists leave out.
pub async fn each(
    session: &Session,
    api: &ApiResource,
    namespace: Option<&str>,
    mut params: ListParams,
    mut take: impl FnMut(Value) -> Result<()>,
) -> Result<()> {
    loop {
        let mut page = session.client.list_page(&api.resource, namespace, &params).await?;
        let token = text_at(&page, "/metadata/continue").to_owned();
        if let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) {
            for mut item in items {
                if let Value::Object(map) = &mut item {
                    map.entry("apiVersion").or_insert_with(|| Value::String(api.resource.api_version()));
                    map.entry("kind").or_insert_with(|| Value::String(api.resource.kind.to_string()));
                }
                take(item)?;
            }
        }
        if token.is_empty() {
            return Ok(());
        }
        params.continue_token = Some(token);
    }
}

/// The place of an object that the server sent.
pub fn target_of(api: &ApiResource, value: &Value) -> Target {
    use client::core::object::ObjectKey;
    let key = ObjectKey::new(text_at(value, "/metadata/namespace"), text_at(value, "/metadata/name"));
    Target { resource: api.resource.clone(), key }
}

/// Whether, and how, a write is only tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DryRun {
    /// It is carried out.
    #[default]
    None,
    /// Nothing is sent.
    Client,
    /// The server does everything but store it.
    Server,
}

// === impl DryRun ===

impl DryRun {
    /// What messages say at their end.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }

    /// The parameters of a write.
    pub fn params(self) -> WriteParams {
        WriteParams { dry_run: self == Self::Server, ..WriteParams::default() }
    }

    /// A patch that follows it.
    pub fn patch(self, kind: PatchKind, body: Value) -> Patch {
        Patch { params: self.params(), ..Patch::new(kind, body) }
    }
}

/// The merge patch dialect that a kind allows: strategic for the kinds that are built in.
pub fn merge_kind(api: &ApiResource) -> PatchKind {
    let resource = &api.resource;
    match api::schema::builtin().type_of(&resource.group, &resource.version, &resource.kind) {
        Some(_) if is_builtin_group(&resource.group) => PatchKind::Strategic,
        _ => PatchKind::Merge,
    }
}

/// Short package names may be shared by foreign groups; built-in groups have no dot or end in `k8s.io`.
pub fn is_builtin_group(group: &str) -> bool {
    !group.contains('.') || group.ends_with(".k8s.io")
}
