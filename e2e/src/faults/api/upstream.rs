//! The way on to the API server: connections that are used again, one set for those who say who they are and one for the
//! proxy's own identity.
//!
//! Owns: connecting. Must never: send somebody's token over a connection that carries another identity; the API server
//! would believe the certificate.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use base64::Engine;
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::tls;
use crate::faults::lock;

/// Where the API server is, and who the proxy is to it where the client does not say who it is.
#[derive(Clone)]
pub struct Upstream {
    /// HOST:PORT.
    authority: String,
    /// By `true`: with the proxy's own identity.
    connectors: Option<[TlsConnector; 2]>,
    token: Option<String>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("authority", &self.authority).finish_non_exhaustive()
    }
}

/// Why there is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The kubeconfig cannot be read.
    #[error("the kubeconfig {0} cannot be read")]
    Read(String, #[source] io::Error),
    /// It is no kubeconfig.
    #[error("the kubeconfig is no YAML")]
    Yaml(#[from] serde_yaml::Error),
    /// It lacks something.
    #[error("the kubeconfig has no {0}")]
    Lacks(&'static str),
    /// A certificate or key in it cannot be used.
    #[error("a certificate or key of the kubeconfig cannot be used")]
    Certificate(#[from] io::Error),
}

impl Upstream {
    /// A server without TLS.
    pub fn plain(authority: &str) -> Self {
        Self { authority: authority.to_owned(), connectors: None, token: None }
    }

    /// What `kubectl` would talk to with this file.
    pub fn from_kubeconfig(path: &Path) -> Result<Self, UpstreamError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| UpstreamError::Read(path.display().to_string(), error))?;
        let config: Value = serde_yaml::from_str(&text)?;
        let named = |list: &str, key: &str, name: &Value| {
            let mut all = config[list].as_array().into_iter().flatten();
            all.find(|one| one["name"] == *name).map(|one| one[key].clone())
        };
        let context =
            named("contexts", "context", &config["current-context"]).ok_or(UpstreamError::Lacks("context"))?;
        let cluster = named("clusters", "cluster", &context["cluster"]).ok_or(UpstreamError::Lacks("cluster"))?;
        let user = named("users", "user", &context["user"]).ok_or(UpstreamError::Lacks("user"))?;
        let server = cluster["server"].as_str().ok_or(UpstreamError::Lacks("server"))?;
        let token = user["token"].as_str().map(str::to_owned);
        let Some(authority) = server.strip_prefix("https://") else {
            let plain = Self::plain(server.trim_start_matches("http://").trim_end_matches('/'));
            return Ok(Self { token, ..plain });
        };
        let roots = pem(&cluster, "certificate-authority")?.ok_or(UpstreamError::Lacks("certificate authority"))?;
        let chain = pem(&user, "client-certificate")?;
        let key = pem(&user, "client-key")?;
        let identity = chain.as_deref().zip(key.as_deref());
        let connectors = [tls::connector(&roots, None)?, tls::connector(&roots, identity)?];
        let authority = authority.trim_end_matches('/');
        let authority = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:443") };
        Ok(Self { authority, connectors: Some(connectors), token })
    }

    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    async fn connect(&self, own: bool) -> io::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(&self.authority).await?;
        stream.set_nodelay(true)?;
        match &self.connectors {
            None => shake(TokioIo::new(stream)).await,
            Some(connectors) => {
                let host = self.authority.rsplit_once(':').map_or(&*self.authority, |(host, _)| host);
                let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
                let stream = connectors[usize::from(own)].connect(name, stream).await?;
                shake(TokioIo::new(stream)).await
            }
        }
    }
}

async fn shake<T>(stream: T) -> io::Result<SendRequest<Full<Bytes>>>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
    // It ends when nobody sends any more, or with an error that the one who waits for the answer gets too.
    tokio::spawn(connection);
    Ok(sender)
}

/// A file's content, or that of the field beside it.
fn pem(place: &Value, name: &str) -> Result<Option<Vec<u8>>, UpstreamError> {
    if let Some(data) = place[format!("{name}-data")].as_str() {
        let decoded = base64::engine::general_purpose::STANDARD.decode(data).map_err(io::Error::other)?;
        return Ok(Some(decoded));
    }
    Ok(place[name].as_str().map(std::fs::read).transpose()?)
}

/// Connections that wait for the next request.
pub(super) struct Pool {
    pub(super) upstream: Upstream,
    idle: [Mutex<Vec<SendRequest<Full<Bytes>>>>; 2],
}

impl Pool {
    pub(super) fn new(upstream: Upstream) -> Arc<Self> {
        Arc::new(Self { upstream, idle: Default::default() })
    }

    /// A connection; `own`: with the proxy's identity.
    pub(super) async fn take(&self, own: bool) -> io::Result<SendRequest<Full<Bytes>>> {
        let waiting = {
            let mut idle = lock(&self.idle[usize::from(own)]);
            idle.retain(SendRequest::is_ready);
            idle.pop()
        };
        match waiting {
            Some(sender) => Ok(sender),
            None => self.upstream.connect(own).await,
        }
    }

    /// Gives it back once its answer was read to the end.
    pub(super) async fn give_back(&self, own: bool, mut sender: SendRequest<Full<Bytes>>) {
        if sender.ready().await.is_ok() {
            lock(&self.idle[usize::from(own)]).push(sender);
        }
    }
}
