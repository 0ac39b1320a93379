//! Carries `/orlop/v1`: machines that join, certificates that are renewed, the servers of the cluster.

use apiserver_core::cluster::{
    self, BackupFacts, BackupRequest, Member, NodeAnswer, NodeRequest, RotationRequest, ServerAnswer,
    ServerRequest, check_name, check_node_name,
};
use apiserver_core::failure::Refused;
use apiserver_core::{Request, Response as CoreResponse, failure};
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde::de::DeserializeOwned;
use serde_json::json;
use store::backup::{self, Backup};
use store::{ChangeError, MemberStatus, Role};

use crate::body::{Body, BodyError};
use crate::keyring;
use crate::pki::{COMPONENT_LIFETIME, PkiError};
use crate::respond::IntoHttp as _;
use crate::shell::{Caller, Shell};

pub(crate) use apiserver_core::cluster::AUTHORITY;

/// Whether the path is served here.
pub(crate) fn is_cluster(path: &str) -> bool {
    path.starts_with("/orlop/v1/")
}

// === impl Shell ===

impl Shell {
    /// Answers such a path. Who asks may ask: that was decided.
    pub(crate) async fn cluster(&self, request: &Request, caller: &Caller) -> Response<Body> {
        if request.info.path == cluster::BACKUP && request.info.method == Method::POST {
            return match self.backup(request).await {
                Ok(body) => Response::new(body),
                Err(refused) => refused.into_http(),
            };
        }
        self.cluster_answer(request, caller).await.unwrap_or_else(|refused| *refused).into_http()
    }

    /// A backup of the newest state. It is made while it is sent: a piece is in memory at a time.
    async fn backup(&self, request: &Request) -> Result<Body, Refused> {
        let asked: BackupRequest = read(request)?;
        let key =
            hex_key(&asked.key).ok_or_else(|| failure::bad_request("key: must be 64 hexadecimal digits"))?;
        let format = asked.format.unwrap_or(backup::FORMAT);
        if !(backup::OLDEST_FORMAT..=backup::FORMAT).contains(&format) {
            let message = format!("format: must be between {} and {}", backup::OLDEST_FORMAT, backup::FORMAT);
            return Err(failure::bad_request(&message));
        }
        let keyring = self.authority.keyring();
        let facts = BackupFacts {
            created: jiff::Timestamp::now().to_string(),
            authority: keyring.authority.current.certificate,
            authority_key: keyring.authority.current.key,
            token_seed: keyring.token_key.current.seed,
            cluster: self.cluster.clone(),
        };
        let facts = serde_json::to_vec(&facts).map_err(|error| failure::internal(&error.to_string()))?;
        let image = self.store.image().await;
        let image = image.map_err(|error| api::status::Status::unavailable(error.to_string()))?;
        let backup = Backup::new(*image, format, &facts, key, rand::random());
        let backup = backup.map_err(|error| failure::internal(&error.to_string()))?;
        let pieces = futures::stream::try_unfold(backup, |mut backup| async move {
            let made = tokio::task::spawn_blocking(move || {
                let piece = backup.next_piece();
                (backup, piece)
            });
            let (backup, piece) = made.await.map_err(BodyError::from)?;
            Ok(piece.map_err(BodyError::from)?.map(|piece| (Frame::data(Bytes::from(piece)), backup)))
        });
        Ok(Body::stream(StreamBody::new(pieces)))
    }

    async fn cluster_answer(&self, request: &Request, caller: &Caller) -> Result<CoreResponse, Refused> {
        let path = request.info.path.trim_end_matches('/');
        let of_member = path.strip_prefix(cluster::MEMBERS).map(|rest| rest.trim_start_matches('/'));
        match (&request.info.method, path, of_member) {
            (&Method::GET, cluster::AUTHORITY, _) => {
                Ok(CoreResponse::text(StatusCode::OK, self.authority.ca_pem()))
            }
            (&Method::POST, cluster::JOIN_NODE, _) => self.join_node(&read(request)?).await,
            (&Method::POST, cluster::JOIN_SERVER, _) => self.join_server(read(request)?).await,
            (&Method::POST, cluster::CERTIFICATE, _) => self.renew(&read(request)?, caller).await,
            (&Method::GET, _, Some("")) => {
                Ok(document(&self.store.members().await.into_iter().map(shown).collect::<Vec<_>>()))
            }
            (method, _, Some(rest)) if !rest.is_empty() => self.change_member(method, rest).await,
            (method, path, _) if path.starts_with(cluster::KEYRING) => {
                self.keyring(method, path[cluster::KEYRING.len()..].trim_start_matches('/'), request).await
            }
            (
                _,
                cluster::AUTHORITY
                | cluster::JOIN_NODE
                | cluster::JOIN_SERVER
                | cluster::CERTIFICATE
                | cluster::BACKUP,
                _,
            )
            | (_, _, Some(_)) => Err(api::status::Status::method_not_allowed_here().into()),
            _ => Err(failure::no_such_path()),
        }
    }

    async fn join_node(&self, request: &NodeRequest) -> Result<CoreResponse, Refused> {
        let snapshot = self.store.linearizable().await;
        let snapshot = snapshot.map_err(|error| api::status::Status::unavailable(error.to_string()))?;
        check_node_name(&snapshot, &request.name)?;
        self.certify(request).await
    }

    async fn renew(&self, request: &NodeRequest, caller: &Caller) -> Result<CoreResponse, Refused> {
        if caller.user.node() != Some(request.name.as_str()) {
            return Err(failure::bad_request("name: a node gets certificates of its own name only"));
        }
        self.certify(request).await
    }

    async fn certify(&self, request: &NodeRequest) -> Result<CoreResponse, Refused> {
        let user = format!("system:node:{}", request.name);
        let signed = self.authority.sign_client(
            &request.signing_request,
            &user,
            apiserver_core::user::NODES,
            COMPONENT_LIFETIME,
        );
        let certificate = signed.map_err(|error| match &error {
            PkiError::Request { source } => failure::bad_request(&format!("signingRequest: {source}")),
            other => failure::internal(&other.to_string()),
        })?;
        let answer = NodeAnswer {
            certificate,
            cluster: self.cluster.clone(),
            servers: self.servers().await,
            authorities: self.authority.ca_pem(),
        };
        Ok(document(&answer))
    }

    /// A new server becomes a learner of the store, and is told the cluster's keys.
    async fn join_server(&self, request: ServerRequest) -> Result<CoreResponse, Refused> {
        check_name(&request.name)?;
        if !is_host_and_port(&request.address) {
            return Err(failure::bad_request("address: must be HOST:PORT"));
        }
        let known = self.store.members().await;
        match known.iter().find(|member| member.name == request.name) {
            Some(member) if member.role == Role::Voter => {
                let message = format!(
                    "a server named {:?} is in the cluster already: choose another name with --name, or remove that one with `orlop member remove {}`",
                    request.name, member.id
                );
                return Err(failure::conflict(&message));
            }
            // A server that was about to join and did not: it begins anew, with another id.
            Some(member) => self.store.remove_member(member.id).await.map_err(refused)?,
            None => {}
        }
        let member = self.store.add_member(request.name, request.address).await.map_err(refused)?;
        let answer =
            ServerAnswer { member, keyring: self.authority.keyring(), cluster: self.cluster.clone() };
        Ok(document(&answer))
    }

    /// `DELETE ID`, `POST ID/promote`, `POST ID/transfer-leader`.
    async fn change_member(&self, method: &Method, rest: &str) -> Result<CoreResponse, Refused> {
        let (id, action) = rest.split_once('/').unwrap_or((rest, ""));
        let id: u64 = id.parse().map_err(|_| failure::bad_request("the id of a member is a number"))?;
        let done = match (method, action) {
            (&Method::DELETE, "") => self.store.remove_member(id).await,
            (&Method::POST, "promote") => self.store.promote(id).await,
            (&Method::POST, "transfer-leader") => self.store.transfer_lead(id).await,
            (_, "" | "promote" | "transfer-leader") => {
                return Err(api::status::Status::method_not_allowed_here().into());
            }
            _ => return Err(failure::no_such_path()),
        };
        done.map_err(refused)?;
        Ok(success())
    }

    /// `GET`, `POST KEY/rotate`, `POST KEY/drop-old`.
    async fn keyring(&self, method: &Method, rest: &str, request: &Request) -> Result<CoreResponse, Refused> {
        match (method, rest.split_once('/')) {
            (&Method::GET, None) if rest.is_empty() => {
                let keyring = self.authority.keyring();
                return Ok(document(&keyring.status(&keyring::holders(self).await)));
            }
            (&Method::POST, Some((kind, "rotate"))) => {
                keyring::change(self, kind, &read(request)?, false).await?;
            }
            (&Method::POST, Some((kind, "drop-old"))) => {
                let nothing = RotationRequest { keep_old_seconds: 0 };
                keyring::change(self, kind, &nothing, true).await?;
            }
            (_, Some((_, "rotate" | "drop-old"))) => {
                return Err(api::status::Status::method_not_allowed_here().into());
            }
            _ => return Err(failure::no_such_path()),
        }
        Ok(success())
    }

    /// `HOST:PORT` of the servers.
    async fn servers(&self) -> Vec<String> {
        self.store.members().await.into_iter().map(|member| member.address).collect()
    }
}

fn success() -> CoreResponse {
    CoreResponse::document(
        StatusCode::OK,
        &json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}),
    )
}

/// Reads 64 hexadecimal digits.
fn hex_key(text: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(key)
}

fn shown(member: MemberStatus) -> Member {
    Member {
        id: member.id,
        name: member.name,
        address: member.address,
        role: match member.role {
            Role::Voter => "voter".to_owned(),
            Role::Learner => "learner".to_owned(),
        },
        leader: member.leads,
        applied_index: member.applied.or(member.matched),
    }
}

fn is_host_and_port(address: &str) -> bool {
    address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn read<T: DeserializeOwned>(request: &Request) -> Result<T, Refused> {
    serde_json::from_slice(&request.body)
        .map_err(|error| failure::bad_request(&format!("the body cannot be read: {error}")))
}

fn document<T: serde::Serialize>(value: &T) -> CoreResponse {
    match serde_json::to_value(value) {
        Ok(value) => CoreResponse::document(StatusCode::OK, &value),
        Err(error) => *failure::internal(&error.to_string()),
    }
}

fn refused(error: ChangeError) -> Refused {
    match error {
        ChangeError::NoSuchMember { .. } => {
            Box::new(CoreResponse::failure(StatusCode::NOT_FOUND, "NotFound", &error.to_string()))
        }
        ChangeError::Removed { .. }
        | ChangeError::LastVoter { .. }
        | ChangeError::NotVoter { .. }
        | ChangeError::Away { .. }
        | ChangeError::Behind { .. } => failure::conflict(&error.to_string()),
        ChangeError::TimedOut => {
            Box::new(CoreResponse::failure(StatusCode::GATEWAY_TIMEOUT, "Timeout", &error.to_string()))
        }
        ChangeError::Closed => api::status::Status::unavailable(error.to_string()).into(),
    }
}
