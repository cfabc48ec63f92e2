//! One client's connection, from its first byte to its end.
//!
//! Owns: passing bytes on in order, and breaking where it is told. Must never: decide when ([`State::fate`] does).

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    Ending, Fate, Moment, Shared, Upstream, Weather,
    wire::{self, FromClient, FromServer, Kind, Message},
};
use crate::faults::lock;

/// How long the server has to answer what is to be lost: then it is lost all the same.
const ANSWER: Duration = Duration::from_secs(10);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How a connection ends.
enum End {
    Closed,
    Silent,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

struct Connection {
    client: TcpStream,
    server: Box<dyn Stream>,
    from_client: FromClient,
    from_server: FromServer,
    /// The message that opened the session, to open it again elsewhere.
    startup: Option<Bytes>,
    /// The server has been asked for encryption, and answers with one byte.
    asked_tls: bool,
    /// The server waits for a query, outside a transaction, and nothing is on its way to it.
    idle: bool,
    /// The server's answers are lost from here on, and at the end of this one it is over.
    losing: Option<Ending>,
    swapped: u64,
    shared: Arc<Shared>,
}

pub(super) async fn run(mut client: TcpStream, shared: Arc<Shared>) {
    // A message is passed on when it is whole: waiting for more would be a fault that nobody asked for.
    let _ = client.set_nodelay(true);
    let mut cut = shared.cut.subscribe();
    let mut weather = shared.weather.subscribe();
    let now = weather.borrow_and_update().clone();
    match now {
        Weather::Refuse => return,
        Weather::BlackHole => return silence(client).await,
        Weather::Reject { code, message } => return reject(&mut client, &code, &message).await,
        Weather::Fair | Weather::Stall | Weather::Slow(_) => {}
    }
    let (upstream, swapped) = {
        let state = lock(&shared.state);
        (state.upstream.clone(), state.swapped)
    };
    let Ok(server) = connect(&upstream).await else { return };
    let mut connection = Connection {
        client,
        server,
        from_client: FromClient::default(),
        from_server: FromServer::default(),
        startup: None,
        asked_tls: false,
        idle: false,
        losing: None,
        swapped,
        shared,
    };
    let end = tokio::select! {
        end = connection.pass(weather.clone()) => end,
        end = struck(weather) => end,
        _ = cut.changed() => End::Closed,
    };
    if matches!(end, End::Silent) {
        silence(connection.client).await;
    }
}

/// Until the weather ends every connection.
async fn struck(mut weather: watch::Receiver<Weather>) -> End {
    let end = weather
        .wait_for(|now| matches!(now, Weather::Refuse | Weather::Reject { .. } | Weather::BlackHole))
        .await
        .map(|now| *now == Weather::BlackHole);
    if end.unwrap_or(false) { End::Silent } else { End::Closed }
}

/// Holds a connection open, until the client gives it up or the proxy is gone, and says nothing.
async fn silence(mut client: TcpStream) {
    let mut nothing = [0; 4_096];
    while client.read(&mut nothing).await.is_ok_and(|length| length > 0) {}
}

async fn reject(client: &mut TcpStream, code: &str, message: &str) {
    let mut reader = FromClient::default();
    while let Ok(length) = client.read_buf(&mut reader.buffer).await {
        match reader.next().map(|first| first.kind) {
            Some(Kind::Encryption) => {
                let _ = client.write_all(b"N").await;
            }
            Some(_) => {
                let _ = client.write_all(&wire::refusal(code, message)).await;
                let _ = client.shutdown().await;
                return;
            }
            None if length == 0 => return,
            None => {}
        }
    }
}

async fn connect(upstream: &Upstream) -> io::Result<Box<dyn Stream>> {
    Ok(match upstream {
        Upstream::Socket(path) => Box::new(UnixStream::connect(path).await?),
        Upstream::Address(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
    })
}

impl Connection {
    async fn pass(&mut self, mut weather: watch::Receiver<Weather>) -> End {
        loop {
            // Held bytes stay in the kernel's buffers and in the reader's.
            if weather.wait_for(|now| *now != Weather::Stall).await.is_err() {
                return End::Closed;
            }
            while let Some(message) = self.from_client.next() {
                if let Err(end) = self.client_said(message, &weather).await {
                    return end;
                }
            }
            // A message is mostly one read.
            self.from_client.buffer.reserve(1 << 14);
            self.from_server.buffer.reserve(1 << 14);
            let read = async {
                tokio::select! {
                    read = self.client.read_buf(&mut self.from_client.buffer) => (true, read),
                    read = self.server.read_buf(&mut self.from_server.buffer) => (false, read),
                }
            };
            let (from_client, read) = if self.losing.is_some() {
                match timeout(ANSWER, read).await {
                    Ok(read) => read,
                    Err(_) => return self.lost(),
                }
            } else {
                read.await
            };
            match read {
                Ok(0) | Err(_) => return if self.losing.is_some() { self.lost() } else { End::Closed },
                Ok(_) if from_client => {}
                Ok(_) => {
                    if weather.wait_for(|now| *now != Weather::Stall).await.is_err() {
                        return End::Closed;
                    }
                    if let Err(end) = self.server_said().await {
                        return end;
                    }
                }
            }
        }
    }

    fn lost(&self) -> End {
        if self.losing == Some(Ending::Silent) { End::Silent } else { End::Closed }
    }

    async fn client_said(&mut self, message: Message, weather: &watch::Receiver<Weather>) -> Result<(), End> {
        if message.kind == Kind::Encryption {
            self.asked_tls = true;
            return Ok(self.server.write_all(&message.bytes).await?);
        }
        if message.kind == Kind::Startup {
            self.startup = Some(message.bytes.clone());
        }
        if self.idle {
            self.follow().await?;
        }
        let slow = if let Weather::Slow(wait) = *weather.borrow() { Some(wait) } else { None };
        if let Some(wait) = slow {
            sleep(wait).await;
        }
        let fate = lock(&self.shared.state).fate(&message);
        self.idle = false;
        match fate {
            Fate::Pass => self.server.write_all(&message.bytes).await?,
            Fate::Wait(wait) => {
                sleep(wait).await;
                self.server.write_all(&message.bytes).await?;
            }
            Fate::Break(Moment::Before, ending) => return Err(over(ending)),
            Fate::Break(Moment::During, ending) => {
                let half = message.bytes.get(..message.bytes.len() / 2).unwrap_or_default();
                self.server.write_all(half).await?;
                return Err(over(ending));
            }
            Fate::Break(Moment::After, ending) => {
                self.server.write_all(&message.bytes).await?;
                // What is encrypted has no end that could be seen: so much for its answer.
                if message.kind == Kind::Terminate {
                    return Err(over(ending));
                }
                self.losing = Some(ending);
            }
        }
        Ok(())
    }

    async fn server_said(&mut self) -> Result<(), End> {
        if self.asked_tls {
            let Some(answer) = self.from_server.buffer.first().copied() else { return Ok(()) };
            self.asked_tls = false;
            self.client.write_all(&self.from_server.buffer.split_to(1)).await?;
            if answer == b'S' || answer == b'G' {
                self.from_client.go_opaque();
            }
        }
        if self.from_client.is_opaque() {
            let bytes = self.from_server.buffer.split();
            return match self.losing {
                Some(ending) => Err(over(ending)),
                None => Ok(self.client.write_all(&bytes).await?),
            };
        }
        while let Some((bytes, ready)) = self.from_server.next() {
            if let (Some(ending), Some(_)) = (self.losing, ready) {
                return Err(over(ending));
            }
            if self.losing.is_none() {
                self.idle = ready == Some(b'I');
                self.client.write_all(&bytes).await?;
            }
        }
        Ok(())
    }

    /// To another server, if there is one by now, without the client's notice.
    async fn follow(&mut self) -> Result<(), End> {
        let (upstream, swapped) = {
            let state = lock(&self.shared.state);
            (state.upstream.clone(), state.swapped)
        };
        if swapped == self.swapped {
            return Ok(());
        }
        let Some(startup) = self.startup.clone() else { return Err(End::Closed) };
        let mut server = connect(&upstream).await?;
        server.write_all(&startup).await?;
        let mut answers = FromServer::default();
        loop {
            match answers.next() {
                Some((_, Some(_))) => break,
                Some((bytes, None)) if bytes.first() == Some(&b'E') => return Err(End::Closed),
                Some(_) => {}
                None => {
                    if server.read_buf(&mut answers.buffer).await? == 0 {
                        return Err(End::Closed);
                    }
                }
            }
        }
        self.server = server;
        self.from_server = answers;
        self.swapped = swapped;
        Ok(())
    }
}

fn over(ending: Ending) -> End {
    match ending {
        Ending::Cut => End::Closed,
        Ending::Silent => End::Silent,
    }
}
