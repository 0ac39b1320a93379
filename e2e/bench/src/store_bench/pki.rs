//! An authority of its own, certificates for three members and a client, and TLS made of them.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use store::{Connector, PEER_PROTOCOL, PeerTls};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::transport::{Channel, Endpoint};

/// Writes `ca.crt`, and `NAME.crt` with `NAME.key` for each name.
pub fn write(folder: &Path, names: &[&str]) -> Result<()> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "bench authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    std::fs::write(folder.join("ca.crt"), authority.pem())?;
    for name in names {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, *name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        std::fs::write(folder.join(format!("{name}.crt")), params.signed_by(&key, &authority)?.pem())?;
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    }
    Ok(())
}

fn roots(folder: &Path) -> Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.crt"))?)?;
    Ok(Arc::new(roots))
}

fn identity(folder: &Path, name: &str) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let certificate = CertificateDer::from_pem_file(folder.join(format!("{name}.crt")))?;
    Ok((vec![certificate], PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key")))?))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// TLS for a server that lets in who has a certificate of the authority.
pub fn acceptor(folder: &Path, name: &str) -> Result<TlsAcceptor> {
    let (chain, key) = identity(folder, name)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(folder)?, provider()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), PEER_PROTOCOL.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Connects with one certificate.
#[derive(Clone)]
pub struct Mutual(TlsConnector);

impl Mutual {
    /// The certificate of that name.
    pub fn new(folder: &Path, name: &str) -> Result<Self> {
        let (chain, key) = identity(folder, name)?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(folder)?)
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// A channel of a client.
    pub fn client(&self, address: &str) -> Result<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).context("an address")?;
        Ok(self.lay(endpoint, address))
    }

    fn lay(&self, endpoint: Endpoint, address: &str) -> Channel {
        let (connector, address) = (self.0.clone(), address.to_owned());
        endpoint.connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
            let (connector, address) = (connector.clone(), address.clone());
            async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
            }
        }))
    }
}

impl Connector for Mutual {
    fn tls(&self) -> std::io::Result<PeerTls> {
        let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
        Ok(PeerTls { config: ClientConfig::clone(self.0.config()), name })
    }
}
