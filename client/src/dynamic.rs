//! Requests on resources that are known only at run time: documents in, documents out.

use bytes::Bytes;
use client_core::object::{ResourceType, Target};
use client_core::plan::{Write, delete_options};
use http::{Method, Request, header};
use kube::client::Body;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::events::Recorder;
use crate::params::{DeleteOptions, ListParams, Patch, Query, WriteParams};
use crate::{Client, Error};

// === impl Client ===

impl Client {
    /// A request without a body.
    ///
    /// # Errors
    /// [`Error::Request`] when the path is not one.
    pub fn build(method: Method, path: &str) -> Result<Request<Body>, Error> {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::ACCEPT, "application/json")
            .body(Body::empty())
            .map_err(Error::request)
    }

    /// A request with a body.
    ///
    /// # Errors
    /// [`Error::Request`] when the path or the content type is not one.
    pub fn build_with(
        method: Method,
        path: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> Result<Request<Body>, Error> {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, content_type)
            .body(Body::from(body.into()))
            .map_err(Error::request)
    }

    /// Reads a path as JSON, whatever it is.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get_path<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.request(Self::build(Method::GET, path)?).await
    }

    /// Reads one object.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get_object(&self, target: &Target) -> Result<Value, Error> {
        self.get_path(&target.path(None)).await
    }

    /// Reads one page of a collection: the whole `List` document.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_page(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        params: &ListParams,
    ) -> Result<Value, Error> {
        let mut query = Query::new(resource.collection_path(namespace));
        params.add_to(&mut query);
        self.get_path(&query.finish()).await
    }

    /// Creates an object.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create_object(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        object: &Value,
        params: &WriteParams,
    ) -> Result<Value, Error> {
        self.send_document(Method::POST, resource.collection_path(namespace), object, params).await
    }

    /// Replaces an object, or a subresource of it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn replace_object(
        &self,
        target: &Target,
        subresource: Option<&str>,
        object: &Value,
        params: &WriteParams,
    ) -> Result<Value, Error> {
        self.send_document(Method::PUT, target.path(subresource), object, params).await
    }

    /// Patches an object, or a subresource of it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn patch_object(&self, target: &Target, patch: &Patch) -> Result<Value, Error> {
        let bytes = self.patch_bytes(target, patch).await?;
        serde_json::from_slice(&bytes).map_err(Error::Decode)
    }

    /// Deletes an object. Answers with its last state, or with a Status.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_object(&self, target: &Target, options: &DeleteOptions) -> Result<Value, Error> {
        let bytes = self.delete_bytes(&target.path(None), options).await?;
        serde_json::from_slice(&bytes).map_err(Error::Decode)
    }

    /// Deletes all objects of a collection that are selected.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_collection(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
        params: &ListParams,
        options: &DeleteOptions,
    ) -> Result<Value, Error> {
        let mut query = Query::new(resource.collection_path(namespace));
        params.add_to(&mut query);
        let bytes = self.delete_bytes(&query.finish(), options).await?;
        serde_json::from_slice(&bytes).map_err(Error::Decode)
    }

    /// Carries out a planned write. Events go to the recorder and never fail. Returns the server's answer (empty for events).
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn write(&self, write: Write, recorder: &Recorder) -> Result<Bytes, Error> {
        match write {
            Write::Create { resource, namespace, object } => {
                let path = resource.collection_path(Some(&namespace));
                self.send_bytes(Method::POST, path, &object, &WriteParams::default()).await
            }
            Write::CreateSub { target, subresource, object } => {
                let path = target.path(Some(subresource));
                self.send_bytes(Method::POST, path, &object, &WriteParams::default()).await
            }
            Write::Patch { target, subresource, precondition, kind, mut body } => {
                precondition.add_to_patch(kind, &mut body);
                let mut patch = Patch::new(kind, body);
                patch.subresource = subresource.map(str::to_owned);
                self.patch_bytes(&target, &patch).await
            }
            Write::Delete { target, precondition, grace_period_seconds, propagation } => {
                let options =
                    DeleteOptions { precondition, grace_period_seconds, propagation, dry_run: false };
                self.delete_bytes(&target.path(None), &options).await
            }
            Write::Event(note) => {
                recorder.note(note);
                Ok(Bytes::new())
            }
        }
    }

    pub(crate) async fn patch_bytes(&self, target: &Target, patch: &Patch) -> Result<Bytes, Error> {
        let mut query = Query::new(target.path(patch.subresource.as_deref()));
        patch.params.add_to(&mut query, self.field_manager());
        let body = serde_json::to_vec(&patch.body).map_err(Error::request)?;
        let request = Self::build_with(Method::PATCH, &query.finish(), patch.kind.content_type(), body)?;
        self.request_bytes(request).await
    }

    pub(crate) async fn delete_bytes(&self, path: &str, options: &DeleteOptions) -> Result<Bytes, Error> {
        let mut document =
            delete_options(&options.precondition, options.grace_period_seconds, options.propagation);
        if let (true, Value::Object(map)) = (options.dry_run, &mut document) {
            map.insert("dryRun".to_owned(), serde_json::json!(["All"]));
        }
        let body = serde_json::to_vec(&document).map_err(Error::request)?;
        self.request_bytes(Self::build_with(Method::DELETE, path, "application/json", body)?).await
    }

    pub(crate) async fn send_bytes(
        &self,
        method: Method,
        path: String,
        document: &impl serde::Serialize,
        params: &WriteParams,
    ) -> Result<Bytes, Error> {
        let mut query = Query::new(path);
        params.add_to(&mut query, self.field_manager());
        let body = serde_json::to_vec(document).map_err(Error::request)?;
        self.request_bytes(Self::build_with(method, &query.finish(), "application/json", body)?).await
    }

    async fn send_document(
        &self,
        method: Method,
        path: String,
        document: &Value,
        params: &WriteParams,
    ) -> Result<Value, Error> {
        let bytes = self.send_bytes(method, path, document, params).await?;
        serde_json::from_slice(&bytes).map_err(Error::Decode)
    }
}
