//! A way to the database that breaks on command: TCP on the loopback in front of the server's Unix socket.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
};

/// What happens to the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Weather {
    /// They pass.
    Fair = 0,
    /// The next COMMIT reaches the server; its answer, and the connection, are lost. Fair afterwards.
    LoseCommit = 1,
    /// The same, but the connection stays open and silent: nobody is told.
    SilentCommit = 3,
    /// Connections that are open now go silent and stay so, also when it is fair again for new ones.
    Silent = 2,
    /// Connections are closed, new ones at once and old ones at their next word.
    Cut = 4,
    /// Fair until the database is asked whether it is well a second time: then silent. What wakes for a moment only.
    OneProbe = 5,
    /// It was asked once.
    ProbedOnce = 6,
    /// The next BEGIN of a call reaches the server; its answer is held until the weather changes again.
    HoldBegin = 7,
    /// It is held.
    Held = 8,
}

/// Whether it is well is asked by this.
const PROBE: &[u8] = b"pg_is_in_recovery";

/// The proxy; gone with the test's runtime.
pub struct Proxy {
    port: u16,
    weather: Arc<AtomicU8>,
}

impl Proxy {
    /// Listens, and passes everything on to the socket in `folder`.
    pub async fn before(folder: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let weather = Arc::new(AtomicU8::new(Weather::Fair as u8));
        let shared = Arc::clone(&weather);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if shared.load(Ordering::SeqCst) == Weather::Cut as u8 {
                    continue;
                }
                let server = UnixStream::connect(folder.join(".s.PGSQL.5432")).await.unwrap();
                tokio::spawn(pass(client, server, Arc::clone(&shared)));
            }
        });
        Self { port, weather }
    }

    /// Where it listens.
    pub fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Whether it is so.
    pub fn is(&self, weather: Weather) -> bool {
        self.weather.load(Ordering::SeqCst) == weather as u8
    }

    /// Changes the weather.
    pub fn set(&self, weather: Weather) {
        self.weather.store(weather as u8, Ordering::SeqCst);
    }
}

async fn pass(mut client: TcpStream, mut server: UnixStream, weather: Arc<AtomicU8>) {
    let is = |kind: Weather| weather.load(Ordering::SeqCst) == kind as u8;
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let (from_client, length) = tokio::select! {
            read = client.read(&mut up) => (true, read.unwrap_or(0)),
            read = server.read(&mut down) => (false, read.unwrap_or(0)),
        };
        if is(Weather::Silent) {
            // Nothing passes any more in either direction, and nobody is told.
            return std::future::pending().await;
        }
        if length == 0 || is(Weather::Cut) {
            return;
        }
        if !from_client {
            if client.write_all(&down[..length]).await.is_err() {
                return;
            }
            continue;
        }
        if up[..length].windows(PROBE.len()).any(|bytes| bytes == PROBE) {
            let next = |from: Weather, to: Weather| {
                weather.compare_exchange(from as u8, to as u8, Ordering::SeqCst, Ordering::SeqCst).is_ok()
            };
            if next(Weather::ProbedOnce, Weather::Silent) {
                return std::future::pending().await;
            }
            next(Weather::OneProbe, Weather::ProbedOnce);
        }
        if server.write_all(&up[..length]).await.is_err() {
            return;
        }
        // A connection that is given back begins as well, and ends it in the same message.
        let begins = |bytes: &[u8]| bytes.windows(5).any(|word| word == b"BEGIN") && !bytes.ends_with(b"ROLLBACK\0");
        if is(Weather::HoldBegin) && begins(&up[..length]) {
            weather.store(Weather::Held as u8, Ordering::SeqCst);
            while is(Weather::Held) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let told = is(Weather::LoseCommit);
        if (told || is(Weather::SilentCommit)) && up[..length].windows(6).any(|bytes| bytes == b"COMMIT") {
            weather.store(Weather::Fair as u8, Ordering::SeqCst);
            // The server's answer is awaited, so that the commit is done, and thrown away.
            let _ = server.read(&mut down).await;
            if told {
                return;
            }
            return std::future::pending().await;
        }
    }
}
