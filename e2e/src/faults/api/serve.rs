//! Requests in, requests out.
//!
//! Owns: what is done to them. Must never: decide to whom ([`State::decide`](super::State) does).

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    Request, Response, Uri,
    body::{Body, Frame, Incoming},
    client::conn::http1::SendRequest,
    header::{ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_rustls::TlsAcceptor;

use super::{
    Act, Shared, Upstream, rules,
    upstream::Pool,
    watches::{Next, Said, Watch},
};
use crate::faults::lock;

/// How long an answer that is to be lost is waited for.
const WHOLE: Duration = Duration::from_secs(5);

type Answer = Response<BoxBody<Bytes, Broken>>;

/// The client's connection is to be cut: hyper closes it for a service that fails.
#[derive(Debug, thiserror::Error)]
#[error("cut on command, or by the API server")]
struct Broken;

pub(super) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, upstream: Upstream, shared: Arc<Shared>) {
    let pool = Pool::new(upstream);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        // Or a small answer waits for the acknowledgement of another.
        let _ = stream.set_nodelay(true);
        let (pool, shared, tls) = (Arc::clone(&pool), Arc::clone(&shared), tls.clone());
        connections.spawn(async move {
            match tls {
                None => converse(TokioIo::new(stream), pool, shared).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        converse(TokioIo::new(stream), pool, shared).await;
                    }
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn converse<T>(stream: T, pool: Arc<Pool>, shared: Arc<Shared>)
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(request, Arc::clone(&pool), Arc::clone(&shared)));
    // How it ends is the client's to notice.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
}

async fn answer(request: Request<Incoming>, pool: Arc<Pool>, shared: Arc<Shared>) -> Result<Answer, Broken> {
    let mut fair = shared.fair.subscribe();
    fair.borrow_and_update();
    let act = lock(&shared.state).decide(request.method(), request.uri());
    match act {
        None => pass(request, pool, shared).await,
        Some(Act::Delay(wait)) => {
            tokio::time::sleep(wait).await;
            pass(request, pool, shared).await
        }
        Some(Act::Stall) => {
            // An error means that the proxy is going.
            fair.changed().await.map_err(|_| Broken)?;
            pass(request, pool, shared).await
        }
        Some(Act::CutBefore) => Err(Broken),
        Some(Act::CutAfter) => {
            // The whole answer: then it is done. A watch has no end, and is cut once it has begun.
            let body = pass(request, pool, shared).await?.into_body();
            let _ = tokio::time::timeout(WHOLE, body.collect()).await;
            Err(Broken)
        }
        Some(Act::StallAfter) => {
            let (head, body) = pass(request, pool, Arc::clone(&shared)).await?.into_parts();
            let bytes = body.collect().await?.to_bytes();
            lock(&shared.state).counts.stalled += 1;
            fair.changed().await.map_err(|_| Broken)?;
            Ok(Response::from_parts(head, whole(bytes)))
        }
        Some(Act::Answer { code, retry_after }) => {
            // Read first: a client that still sends would not read.
            let _ = request.into_body().collect().await;
            let mut answer = Response::builder().status(code).header(CONTENT_TYPE, "application/json");
            if let Some(seconds) = retry_after {
                answer = answer.header(RETRY_AFTER, seconds);
            }
            answer.body(whole(Bytes::from(rules::failure(code, retry_after)))).map_err(|_| Broken)
        }
    }
}

async fn pass(request: Request<Incoming>, pool: Arc<Pool>, shared: Arc<Shared>) -> Result<Answer, Broken> {
    let path = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    let is_watch = request.uri().query().is_some_and(|query| {
        query.split('&').any(|pair| matches!(pair.split_once('='), Some(("watch", "true" | "1"))))
    });
    let (mut head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
    let own = !head.headers.contains_key(AUTHORIZATION);
    head.uri = path.parse::<Uri>().map_err(|_| Broken)?;
    let host = HeaderValue::from_str(pool.upstream.authority()).map_err(|_| Broken)?;
    head.headers.insert(HOST, host);
    head.headers.remove(CONNECTION);
    if is_watch {
        // Its lines have to be read.
        head.headers.remove(ACCEPT_ENCODING);
    }
    if let (true, Some(token)) = (own, pool.upstream.token()) {
        let bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| Broken)?;
        head.headers.insert(AUTHORIZATION, bearer);
    }
    let (mut sender, answer) = send(&pool, own, head, body).await?;
    let (head, mut body) = answer.into_parts();
    if is_watch && head.status.is_success() {
        // Open before it is counted: whoever waits for the count may say what happens to its events.
        let (watch, said) = shared.watches.open(&path);
        lock(&shared.state).counts.watches += 1;
        let (into, pipe) = mpsc::channel(1);
        tokio::spawn(async move { follow(watch, said, body, &into, &shared).await });
        return Ok(Response::from_parts(head, pipe_body(pipe)));
    }
    let (into, pipe) = mpsc::channel(4);
    tokio::spawn(async move {
        loop {
            match body.frame().await {
                Some(Ok(frame)) => {
                    if into.send(Ok(frame)).await.is_err() {
                        return;
                    }
                }
                Some(Err(_)) => {
                    // If nobody reads any more, nobody minds.
                    let _ = into.send(Err(Broken)).await;
                    return;
                }
                None => break,
            }
        }
        drop(into);
        if sender.ready().await.is_ok() {
            pool.give_back(own, sender).await;
        }
    });
    Ok(Response::from_parts(head, pipe_body(pipe)))
}

/// Sends a request; once more on a new connection, if the one that waited had been closed before anything was sent.
async fn send(
    pool: &Pool,
    own: bool,
    head: hyper::http::request::Parts,
    body: Bytes,
) -> Result<(SendRequest<Full<Bytes>>, Response<Incoming>), Broken> {
    let mut request = Request::from_parts(head, Full::new(body));
    for _ in 0..3 {
        let mut sender = pool.take(own).await.map_err(|_| Broken)?;
        match sender.try_send_request(request).await {
            Ok(answer) => return Ok((sender, answer)),
            Err(mut error) => request = error.take_message().ok_or(Broken)?,
        }
    }
    Err(Broken)
}

/// A watch, event by event, until either side ends it.
async fn follow(
    mut watch: Watch,
    mut said: Said,
    mut body: Incoming,
    into: &mpsc::Sender<Result<Frame<Bytes>, Broken>>,
    shared: &Shared,
) {
    loop {
        let next = tokio::select! {
            frame = body.frame() => match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => watch.received(&bytes),
                    Err(_) => continue,
                },
                Some(Err(_)) => {
                    // If nobody reads any more, nobody minds.
                    let _ = into.send(Err(Broken)).await;
                    return;
                }
                None => Next::End(Vec::new()),
            },
            changed = said.changed() => match changed {
                Err(_) => return,
                Ok(()) => watch.said(),
            },
            () = into.closed() => return,
        };
        let (lines, ends) = match next {
            Next::Pass(lines) => (lines, false),
            Next::End(lines) => (lines, true),
        };
        for line in lines {
            lock(&shared.state).counts.events += 1;
            if into.send(Ok(Frame::data(line))).await.is_err() {
                return;
            }
        }
        if ends {
            return;
        }
    }
}

fn whole(bytes: Bytes) -> BoxBody<Bytes, Broken> {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}

fn pipe_body(pipe: mpsc::Receiver<Result<Frame<Bytes>, Broken>>) -> BoxBody<Bytes, Broken> {
    BoxBody::new(Pipe(pipe))
}

struct Pipe(mpsc::Receiver<Result<Frame<Bytes>, Broken>>);

impl Body for Pipe {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.0.poll_recv(context)
    }
}

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        Self::other(broken)
    }
}
