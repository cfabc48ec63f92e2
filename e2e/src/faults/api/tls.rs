//! TLS on both sides, from PEM files as the harness makes them.
//!
//! Owns: reading them. Must never: accept a certificate that is not of the authority it was given.

use std::{io, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Who the proxy is: a certificate with its key, and the authority that its clients trust.
#[derive(Clone)]
pub struct Certificate {
    /// PEM.
    pub(super) authority: Vec<u8>,
    chain: Vec<u8>,
    key: Vec<u8>,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificate")
    }
}

impl Certificate {
    /// From PEM files.
    pub fn read(authority: &Path, chain: &Path, key: &Path) -> io::Result<Self> {
        Ok(Self { authority: std::fs::read(authority)?, chain: std::fs::read(chain)?, key: std::fs::read(key)? })
    }

    /// The API server's own, of the cluster whose state is in this folder (`BERTH_STATE`).
    pub fn of_cluster(state: &Path) -> io::Result<Self> {
        let pki = state.join("pki");
        Self::read(&pki.join("ca.crt"), &pki.join("apiserver.crt"), &pki.join("apiserver.key"))
    }

    pub(super) fn acceptor(&self) -> io::Result<TlsAcceptor> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(certificates(&self.chain)?, key(&self.key)?)
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// To a server of this authority; as somebody, where there is an identity (chain and key).
pub(super) fn connector(authority: &[u8], identity: Option<(&[u8], &[u8])>) -> io::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority)? {
        roots.add(certificate).map_err(io::Error::other)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    let mut config = match identity {
        Some((chain, secret)) => {
            builder.with_client_auth_cert(certificates(chain)?, key(secret)?).map_err(io::Error::other)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(pem: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(io::Error::other)
}

fn key(pem: &[u8]) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem).map_err(io::Error::other)
}
