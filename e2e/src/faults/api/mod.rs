//! Between the operator and the API server: a proxy on loopback that breaks on command.
//!
//! Owns: what happens to requests, answers and watch events. It speaks HTTP/1.1, as the operator does, behind TLS where
//! it is given a certificate (the cluster's own API server's, whose names include 127.0.0.1 and the node's address: then
//! the operator trusts it as it is), else in the clear. What a client says who it is goes on as it came; without that,
//! and only then, the kubeconfig's own identity is used.
//!
//! Must never: invent an object; nor pass on `exec` and the like, which are not HTTP any more.

mod rules;
mod serve;
mod tls;
mod upstream;
mod watches;

use std::{
    fmt, io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::Engine;
use serde_json::json;
use tokio::{net::TcpListener, sync::watch};

use super::{Log, Task, lock, runtime, wait_until};
pub use rules::{Act, Random, Rule, WatchAct};
pub use tls::Certificate;
pub use upstream::{Upstream, UpstreamError};
use watches::Watches;

/// What went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests, watches too.
    pub requests: u64,
    /// Those that write.
    pub writes: u64,
    /// Watches.
    pub watches: u64,
    /// Events of watches that reached the client.
    pub events: u64,
    /// Events that are held now.
    pub held: u64,
    /// Requests that were done and whose answers were kept back.
    pub stalled: u64,
    /// Faults that came true.
    pub faults: u64,
}

struct State {
    rules: Vec<(Rule, u64)>,
    random: Option<(Random, u64)>,
    counts: Counts,
    log: Log,
}

struct Shared {
    state: Mutex<State>,
    watches: Arc<Watches>,
    /// Goes up when what stalls is to go on.
    fair: watch::Sender<u64>,
}

/// The proxy; gone, with its connections, when this is dropped.
pub struct Proxy {
    address: SocketAddr,
    authority: Option<Vec<u8>>,
    shared: Arc<Shared>,
    _task: Task,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Proxy {
    /// On a port of 127.0.0.1, in the clear.
    pub fn start(upstream: Upstream) -> io::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), upstream, None)
    }

    /// On an address, behind TLS if there is a certificate for it.
    pub fn start_at(address: SocketAddr, upstream: Upstream, certificate: Option<Certificate>) -> io::Result<Self> {
        let _inside = runtime()?.enter();
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let state = State { rules: Vec::new(), random: None, counts: Counts::default(), log: Log::default() };
        let shared =
            Arc::new(Shared { state: Mutex::new(state), watches: Arc::default(), fair: watch::Sender::new(0) });
        let (acceptor, authority) = match certificate {
            Some(certificate) => (Some(certificate.acceptor()?), Some(certificate.authority)),
            None => (None, None),
        };
        let task = runtime()?.spawn(serve::serve(listener, acceptor, upstream, Arc::clone(&shared)));
        Ok(Self { address, authority, shared, _task: Task(task) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A kubeconfig for whoever has this token (`kubectl create token`); empty: for whoever the proxy itself is.
    pub fn kubeconfig(&self, token: &str) -> String {
        let mut cluster = json!({ "server": format!("http://{}", self.address) });
        if let Some(authority) = &self.authority {
            cluster = json!({
                "server": format!("https://{}", self.address),
                "certificate-authority-data": base64::engine::general_purpose::STANDARD.encode(authority),
            });
        }
        let user = if token.is_empty() { json!({}) } else { json!({ "token": token }) };
        // JSON is YAML too.
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "faults",
            "clusters": [{"name": "faults", "cluster": cluster}],
            "users": [{"name": "faults", "user": user}],
            "contexts": [{"name": "faults", "context": {"cluster": "faults", "user": "faults"}}],
        })
        .to_string()
    }

    /// Writes that kubeconfig, for its owner alone.
    pub fn write_kubeconfig(&self, path: &Path, token: &str) -> io::Result<()> {
        use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt};
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(self.kubeconfig(token).as_bytes())
    }

    /// A rule, until it has struck as often as it says.
    pub fn rule(&self, rule: Rule) {
        lock(&self.shared.state).rules.push((rule, 0));
    }

    /// Faults at random from now on; [`fair`](Self::fair) ends them.
    pub fn randomly(&self, random: Random) {
        lock(&self.shared.state).random = Some((random, 0));
    }

    /// What happens to the events of watches whose path and query have `path` in them: those that are open now and, for
    /// [`Hold`](WatchAct::Hold) and [`Drop`](WatchAct::Drop), those that come.
    pub fn watches(&self, path: &str, act: WatchAct) {
        if act != WatchAct::Release {
            lock(&self.shared.state).log.add(format!("watches {path}: {act:?}"));
        }
        self.shared.watches.act(path, act);
    }

    /// No rule, no randomness, and what was held or stalled goes on.
    pub fn fair(&self) {
        {
            let mut state = lock(&self.shared.state);
            state.rules.clear();
            state.random = None;
        }
        self.shared.watches.fair();
        self.shared.fair.send_modify(|count| *count += 1);
    }

    /// Rules that have not struck as often as they say.
    pub fn waiting(&self) -> usize {
        lock(&self.shared.state).rules.len()
    }

    /// Waits until all rules have struck.
    pub fn until_struck(&self, within: Duration) -> bool {
        wait_until(within, || self.waiting() == 0)
    }

    /// Waits until at least so many events are held.
    pub fn until_held(&self, count: u64, within: Duration) -> bool {
        wait_until(within, || self.shared.watches.held() >= count)
    }

    /// What went through so far.
    pub fn counts(&self) -> Counts {
        let state = lock(&self.shared.state);
        Counts { faults: state.log.count, held: self.shared.watches.held(), ..state.counts }
    }

    /// What came true, in order.
    pub fn log(&self) -> Vec<String> {
        lock(&self.shared.state).log.lines.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests;
