//! Between the operator and PostgreSQL: a proxy on loopback that breaks on command.
//!
//! Owns: what happens to connections and messages. Must never: see inside TLS; there every read counts as a message, and
//! statements and COMMITs are not known. So tests that need them give the operator a URL with `sslmode=disable`, through
//! loopback, and the proxy goes on to the server's Unix socket ([`Proxy::url`]).

mod connection;
mod wire;

use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket},
    sync::watch,
};

use super::{Dice, Log, Task, lock, runtime, wait_until};
use wire::Message;

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// Its Unix socket (the file itself).
    Socket(PathBuf),
    /// HOST:PORT.
    Address(String),
}

impl Upstream {
    /// The socket of a server that keeps it in this folder, on the usual port, as `e2e/postgres/start DIR` does in
    /// `DIR/socket`.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self::Socket(folder.into().join(".s.PGSQL.5432"))
    }
}

/// What is so for every connection until it is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weather {
    /// All passes.
    Fair,
    /// Nobody listens; what was connected is cut.
    Refuse,
    /// Connections are made and never answered. Those that are open stay silent for good, also when it is fair again.
    BlackHole,
    /// The same, but nothing is lost: what was held passes when it is fair again.
    Stall,
    /// Each message of the client waits so long before it is passed on.
    Slow(Duration),
    /// New connections get this error (SQLSTATE and text) from the "server", and are closed: 53300 too many connections,
    /// 28P01 wrong password, 57P03 starting up. What was connected is cut.
    Reject {
        /// SQLSTATE.
        code: String,
        /// For people.
        message: String,
    },
}

/// What is counted until a fault comes true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Every message of a client, from the one that opens its session.
    Message,
    /// Every statement that is run.
    Statement,
    /// Every COMMIT.
    Commit,
    /// Every statement with this in its text.
    Text(String),
}

/// When, seen from the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The server never sees it.
    Before,
    /// The server sees half of it.
    During,
    /// The server has done it; its answer is lost.
    After,
}

/// What the client notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The connection is closed.
    Cut,
    /// Nothing: it stays open, and nothing comes any more.
    Silent,
}

/// Something that happens once, to the `nth` unit (from 1) over all connections, counted from when it is injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is counted.
    pub unit: Unit,
    /// Which one it is.
    pub nth: u64,
    /// When.
    pub moment: Moment,
    /// How.
    pub ending: Ending,
}

impl Fault {
    /// The answer to the next COMMIT is lost, and so is the connection.
    pub fn lose_commit() -> Self {
        Self { unit: Unit::Commit, nth: 1, moment: Moment::After, ending: Ending::Cut }
    }
}

/// Which faults come at random: each message is hit with the same chance, and by what is a function of the seed and of the
/// message's number alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Random {
    /// Same seed, same faults.
    pub seed: u64,
    /// Messages of a thousand.
    pub per_mille: u64,
    /// Whether some go silent or wait (up to 2 s) instead of being cut.
    pub silence: bool,
}

/// What went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were made.
    pub connections: u64,
    /// Messages of clients.
    pub messages: u64,
    /// Statements among them.
    pub statements: u64,
    /// COMMITs among them.
    pub commits: u64,
    /// Faults that came true, whatever was the weather.
    pub faults: u64,
}

/// What happens to one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Pass,
    Wait(Duration),
    Break(Moment, Ending),
}

struct State {
    upstream: Upstream,
    /// Goes up when connections are to change to another server without their clients' notice.
    swapped: u64,
    faults: Vec<(Fault, u64)>,
    random: Option<(Random, u64)>,
    counts: Counts,
    log: Log,
}

impl State {
    fn fate(&mut self, message: &Message) -> Fate {
        self.counts.messages += 1;
        self.counts.statements += u64::from(matches!(message.kind, wire::Kind::Statement(_)));
        self.counts.commits += u64::from(message.is_commit());
        let mut fate = Fate::Pass;
        let mut told = None;
        self.faults.retain_mut(|(fault, seen)| {
            let counts = match &fault.unit {
                Unit::Message => true,
                Unit::Statement => matches!(message.kind, wire::Kind::Statement(_)),
                Unit::Commit => message.is_commit(),
                Unit::Text(part) => matches!(&message.kind, wire::Kind::Statement(text) if text.contains(part)),
            };
            *seen += u64::from(counts);
            if fate != Fate::Pass || !counts || *seen < fault.nth {
                return true;
            }
            fate = Fate::Break(fault.moment, fault.ending);
            told = Some(format!("{:?} {:?} {:?} {}", fault.ending, fault.moment, fault.unit, fault.nth));
            false
        });
        if let Some((random, place)) = &mut self.random {
            *place += 1;
            let hit = random.fate(*place);
            if fate == Fate::Pass && hit != Fate::Pass {
                told = Some(format!("seed {} message {place}: {hit:?}", random.seed));
                fate = hit;
            }
        }
        if let Some(line) = told {
            self.log.add(line);
        }
        fate
    }
}

impl Random {
    fn fate(&self, place: u64) -> Fate {
        let mut dice = Dice::at(self.seed, place);
        if dice.below(1_000) >= self.per_mille {
            return Fate::Pass;
        }
        let moments = [Moment::Before, Moment::During, Moment::After];
        let moment = dice.one_of(&moments).copied().unwrap_or(Moment::After);
        match dice.below(6) {
            0 if self.silence => Fate::Break(moment, Ending::Silent),
            1 if self.silence => Fate::Wait(Duration::from_millis(50 + dice.below(1_950))),
            _ => Fate::Break(moment, Ending::Cut),
        }
    }
}

struct Shared {
    state: Mutex<State>,
    weather: watch::Sender<Weather>,
    /// Goes up when all connections are to be cut.
    cut: watch::Sender<u64>,
}

/// The proxy; gone, with its connections, when this is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _task: Task,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Proxy {
    /// On a port of 127.0.0.1.
    pub fn start(upstream: Upstream) -> io::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), upstream)
    }

    /// On an address: inside a cluster's namespace, the node's, so that pods come to it.
    pub fn start_at(address: SocketAddr, upstream: Upstream) -> io::Result<Self> {
        let _inside = runtime()?.enter();
        let listener = listen(address)?;
        let address = listener.local_addr()?;
        let state = State {
            upstream,
            swapped: 0,
            faults: Vec::new(),
            random: None,
            counts: Counts::default(),
            log: Log::default(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            weather: watch::Sender::new(Weather::Fair),
            cut: watch::Sender::new(0),
        });
        let task = runtime()?.spawn(serve(listener, address, Arc::clone(&shared)));
        Ok(Self { address, shared, _task: Task(task) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL through it, without TLS.
    pub fn url(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@{}/{database}?sslmode=disable", self.address)
    }

    /// Changes the weather.
    pub fn set(&self, weather: Weather) {
        if weather != Weather::Fair {
            lock(&self.shared.state).log.add(format!("{weather:?}"));
        }
        self.shared.weather.send_replace(weather);
    }

    /// Fair again, and no fault waits any more.
    pub fn fair(&self) {
        {
            let mut state = lock(&self.shared.state);
            state.faults.clear();
            state.random = None;
        }
        self.set(Weather::Fair);
    }

    /// One fault, once; several may wait at the same time.
    pub fn inject(&self, fault: Fault) {
        lock(&self.shared.state).faults.push((fault, 0));
    }

    /// Faults at random from now on; [`fair`](Self::fair) ends them.
    pub fn randomly(&self, random: Random) {
        lock(&self.shared.state).random = Some((random, 0));
    }

    /// Cuts every connection that is open.
    pub fn cut(&self) {
        lock(&self.shared.state).log.add("Cut all".to_owned());
        self.shared.cut.send_modify(|count| *count += 1);
    }

    /// Another server from now on, as after a failover: what is connected is cut.
    pub fn fail_over(&self, upstream: Upstream) {
        lock(&self.shared.state).upstream = upstream;
        self.cut();
    }

    /// Another server from now on, as behind a pooler: clients stay connected, and between two of their transactions they
    /// are on the other one. The server has to let them in without a password; what they prepared is forgotten.
    pub fn swap(&self, upstream: Upstream) {
        let mut state = lock(&self.shared.state);
        state.log.add(format!("swap to {upstream:?}"));
        state.upstream = upstream;
        state.swapped += 1;
    }

    /// What went through so far.
    pub fn counts(&self) -> Counts {
        let state = lock(&self.shared.state);
        Counts { faults: state.log.count, ..state.counts }
    }

    /// Faults that were injected and have not come true: so a test that tries the n-th message for every n sees that it is
    /// through.
    pub fn waiting(&self) -> usize {
        lock(&self.shared.state).faults.len()
    }

    /// Waits until all injected faults have come true.
    pub fn until_struck(&self, within: Duration) -> bool {
        wait_until(within, || self.waiting() == 0)
    }

    /// What came true, in order.
    pub fn log(&self) -> Vec<String> {
        lock(&self.shared.state).log.lines.iter().cloned().collect()
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // So that the port can be had again after it was refused for a while.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(256)
}

async fn serve(first: TcpListener, address: SocketAddr, shared: Arc<Shared>) {
    let mut weather = shared.weather.subscribe();
    let mut listener = Some(first);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        if *weather.borrow_and_update() == Weather::Refuse {
            listener = None;
        } else if listener.is_none() {
            // Somebody else may have the port for a moment.
            listener = listen(address).ok();
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Err(io::ErrorKind::ConnectionRefused.into())
                }
            }
        };
        tokio::select! {
            changed = weather.changed() => if changed.is_err() { return },
            client = accepted => {
                if let Ok((client, _)) = client {
                    lock(&shared.state).counts.connections += 1;
                    connections.spawn(connection::run(client, Arc::clone(&shared)));
                }
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

#[cfg(test)]
mod tests;
