//! Against a server in the same process that answers like an API server, as far as this goes.

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{Request, Response, body::Frame, client::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::broadcast,
};

use super::{Act, Certificate, Proxy, Random, Rule, Upstream, WatchAct};

/// What the server has seen, and a way to send events to all watches.
struct Server {
    address: SocketAddr,
    writes: Arc<AtomicU64>,
    events: broadcast::Sender<String>,
}

type Body = BoxBody<Bytes, std::convert::Infallible>;

async fn server(tls: Option<tokio_rustls::TlsAcceptor>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let writes = Arc::new(AtomicU64::new(0));
    let events = broadcast::Sender::new(100);
    let (count, sender) = (Arc::clone(&writes), events.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (count, sender, tls) = (Arc::clone(&count), sender.clone(), tls.clone());
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let (count, sender) = (Arc::clone(&count), sender.clone());
                async move { Ok::<_, hyper::Error>(answer(request, &count, &sender).await) }
            });
            tokio::spawn(async move {
                let server = hyper::server::conn::http1::Builder::new();
                match tls {
                    Some(tls) => {
                        let Ok(stream) = tls.accept(stream).await else { return };
                        let _ = server.serve_connection(TokioIo::new(stream), service).await;
                    }
                    None => {
                        let _ = server.serve_connection(TokioIo::new(stream), service).await;
                    }
                }
            });
        }
    });
    Server { address, writes, events }
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    writes: &AtomicU64,
    events: &broadcast::Sender<String>,
) -> Response<Body> {
    if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
        let mut events = events.subscribe();
        let (into, pipe) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            while let Ok(event) = events.recv().await {
                // In two halves: lines do not come in frames of their own.
                let (a, b) = event.split_at(event.len() / 2);
                for half in [a, b] {
                    if into.send(Bytes::from(half.to_owned())).await.is_err() {
                        return;
                    }
                }
            }
        });
        return Response::new(Receiver(pipe).boxed());
    }
    if request.method() != "GET" {
        writes.fetch_add(1, Ordering::SeqCst);
    }
    let who = request.headers().get("authorization").map_or("nobody", |value| value.to_str().unwrap()).to_owned();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let text = format!("{method} {path} {who} {}", String::from_utf8_lossy(&body));
    Response::new(Full::new(Bytes::from(text)).boxed())
}

struct Receiver(tokio::sync::mpsc::Receiver<Bytes>);

impl hyper::body::Body for Receiver {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

async fn ground() -> (Server, Proxy) {
    let server = server(None).await;
    let proxy = Proxy::start(Upstream::plain(&server.address.to_string())).unwrap();
    (server, proxy)
}

/// One request on a connection of its own.
async fn ask(proxy: &Proxy, method: &str, path: &str) -> Result<Response<hyper::body::Incoming>, hyper::Error> {
    let stream = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "proxy")
        .header("authorization", "Bearer x")
        .body(Full::new(Bytes::from_static(b"{}")))
        .unwrap();
    sender.send_request(request).await
}

async fn text(response: Response<hyper::body::Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

const STATUS: &str = "/apis/berth.dev/v1alpha1/namespaces/a/tenantcontainers/b/status";

#[tokio::test]
async fn without_a_rule_everything_passes_and_who_asks_stays_who_it_is() {
    let (server, proxy) = ground().await;
    let answer = ask(&proxy, "PATCH", STATUS).await.unwrap();
    assert_eq!(text(answer).await, format!("PATCH {STATUS} Bearer x {{}}"));
    assert_eq!(server.writes.load(Ordering::SeqCst), 1);
    let counts = proxy.counts();
    assert_eq!((counts.requests, counts.writes, counts.faults), (1, 1, 0));
}

#[tokio::test]
async fn the_third_status_patch_and_no_other_is_hit() {
    let (server, proxy) = ground().await;
    proxy.rule(Rule::once("PATCH", "/status", Act::Answer { code: 409, retry_after: None }).nth(3));
    let mut codes = Vec::new();
    for (method, path) in
        [("PATCH", STATUS), ("GET", STATUS), ("PATCH", STATUS), ("PATCH", "/other"), ("PATCH", STATUS)]
    {
        codes.push(ask(&proxy, method, path).await.unwrap().status().as_u16());
    }
    assert_eq!(codes, [200, 200, 200, 200, 409]);
    assert_eq!(proxy.waiting(), 0);
    assert_eq!(ask(&proxy, "PATCH", STATUS).await.unwrap().status(), 200);
    assert_eq!(server.writes.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn before_means_not_done_and_after_means_done_and_not_heard() {
    let (server, proxy) = ground().await;
    proxy.rule(Rule::once("", STATUS, Act::CutBefore));
    ask(&proxy, "PATCH", STATUS).await.unwrap_err();
    assert_eq!(server.writes.load(Ordering::SeqCst), 0);
    proxy.rule(Rule::once("", STATUS, Act::CutAfter));
    ask(&proxy, "PATCH", STATUS).await.unwrap_err();
    assert_eq!(server.writes.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn refusals_look_like_the_api_servers_ten_times_in_a_row() {
    let (server, proxy) = ground().await;
    proxy.rule(Rule::once("POST", "", Act::Answer { code: 429, retry_after: Some(2) }).times(10));
    for _ in 0..10 {
        let answer = ask(&proxy, "POST", "/api/v1/namespaces").await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (429, &"2".parse().unwrap()));
        let status: serde_json::Value = serde_json::from_str(&text(answer).await).unwrap();
        assert_eq!((&status["kind"], &status["reason"]), (&"Status".into(), &"TooManyRequests".into()));
    }
    assert_eq!(ask(&proxy, "POST", "/api/v1/namespaces").await.unwrap().status(), 200);
    assert_eq!((server.writes.load(Ordering::SeqCst), proxy.counts().faults), (1, 10));
}

#[tokio::test]
async fn what_is_late_comes_and_what_stalls_comes_when_it_is_fair() {
    let (_server, proxy) = ground().await;
    proxy.rule(Rule::once("", "", Act::Delay(Duration::from_millis(100))));
    let begun = Instant::now();
    ask(&proxy, "GET", "/x").await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(100));
    proxy.rule(Rule::once("", "", Act::Stall));
    let waiting = ask(&proxy, "GET", "/x");
    tokio::pin!(waiting);
    tokio::time::timeout(Duration::from_millis(100), &mut waiting).await.unwrap_err();
    proxy.fair();
    assert_eq!(waiting.await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_same_seed_gives_the_same_faults() {
    let (_server, proxy) = ground().await;
    let mut logs = Vec::new();
    for seed in [5, 5, 6] {
        let before = proxy.log().len();
        proxy.randomly(Random { seed, per_mille: 400, writes_only: true, ..Random::default() });
        for n in 0..20 {
            // Some fail; that is what they are for.
            let _ = ask(&proxy, if n % 4 == 0 { "GET" } else { "PATCH" }, STATUS).await;
        }
        proxy.fair();
        logs.push(proxy.log().split_off(before));
    }
    assert_eq!(logs[0], logs[1]);
    assert_ne!(logs[0], logs[2]);
    assert!(logs[0].len() > 2 && logs[0].iter().all(|line| line.contains("PATCH")), "{:?}", logs[0]);
}

/// A watch, and a way to send it an event with this name.
async fn watch(server: &Server, proxy: &Proxy) -> hyper::body::Incoming {
    let body = ask(proxy, "GET", "/api/v1/pods?watch=true&resourceVersion=1").await.unwrap().into_body();
    // The server has to have subscribed.
    while server.events.receiver_count() == 0 || proxy.counts().watches == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    body
}

fn event(name: &str) -> String {
    format!("{{\"type\":\"MODIFIED\",\"object\":{{\"metadata\":{{\"name\":\"{name}\"}}}}}}\n")
}

async fn next(body: &mut hyper::body::Incoming) -> Option<String> {
    let frame = tokio::time::timeout(Duration::from_secs(5), body.frame()).await.expect("no event in time");
    frame.map(|frame| {
        let value: serde_json::Value = serde_json::from_slice(&frame.unwrap().into_data().unwrap()).unwrap();
        let name = &value["object"]["metadata"]["name"];
        name.as_str().map_or_else(|| value["object"]["code"].to_string(), str::to_owned)
    })
}

async fn is_held(proxy: &Proxy, count: u64) {
    let end = Instant::now() + Duration::from_secs(5);
    while proxy.counts().held != count {
        assert!(Instant::now() < end, "{:?}", proxy.counts());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn events_are_held_and_released_in_order() {
    let (server, proxy) = ground().await;
    let mut body = watch(&server, &proxy).await;
    server.events.send(event("a")).unwrap();
    assert_eq!(next(&mut body).await.unwrap(), "a");
    proxy.watches("/pods", WatchAct::Hold);
    for name in ["b", "c"] {
        server.events.send(event(name)).unwrap();
    }
    is_held(&proxy, 2).await;
    tokio::time::timeout(Duration::from_millis(50), body.frame()).await.unwrap_err();
    proxy.watches("/pods", WatchAct::Release);
    assert_eq!(next(&mut body).await.unwrap(), "b");
    assert_eq!(next(&mut body).await.unwrap(), "c");
    assert_eq!(proxy.counts().held, 0);
}

#[tokio::test]
async fn two_events_come_the_other_way_round_held_or_not() {
    let (server, proxy) = ground().await;
    let mut body = watch(&server, &proxy).await;
    proxy.watches("/pods", WatchAct::Reorder);
    for name in ["a", "b", "c"] {
        server.events.send(event(name)).unwrap();
    }
    for name in ["b", "a", "c"] {
        assert_eq!(next(&mut body).await.unwrap(), name);
    }
    proxy.watches("/pods", WatchAct::Hold);
    for name in ["d", "e", "f"] {
        server.events.send(event(name)).unwrap();
    }
    is_held(&proxy, 3).await;
    proxy.watches("/pods", WatchAct::Reorder);
    proxy.fair();
    for name in ["d", "f", "e"] {
        assert_eq!(next(&mut body).await.unwrap(), name);
    }
}

#[tokio::test]
async fn events_can_be_swallowed_and_a_watch_can_be_gone() {
    let (server, proxy) = ground().await;
    let mut body = watch(&server, &proxy).await;
    proxy.watches("/pods", WatchAct::Drop(2));
    for name in ["a", "b", "c"] {
        server.events.send(event(name)).unwrap();
    }
    assert_eq!(next(&mut body).await.unwrap(), "c");
    proxy.watches("/services", WatchAct::Gone);
    proxy.watches("/pods", WatchAct::Gone);
    assert_eq!(next(&mut body).await.unwrap(), "410");
    assert_eq!(next(&mut body).await, None);
    let mut another = watch(&server, &proxy).await;
    server.events.send(event("d")).unwrap();
    assert_eq!(next(&mut another).await.unwrap(), "d");
    proxy.watches("/pods", WatchAct::End);
    assert_eq!(next(&mut another).await, None);
}

#[tokio::test]
async fn behind_tls_with_the_clusters_own_kind_of_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let pki = folder.path().join("pki");
    make_pki(&pki);
    let certificate = Certificate::of_cluster(folder.path()).unwrap();
    let server = server(Some(certificate.acceptor().unwrap())).await;
    let kubeconfig = folder.path().join("kubeconfig");
    let config = format!(
        "{{current-context: c, contexts: [{{name: c, context: {{cluster: k, user: u}}}}], users: [{{name: u, user: {{token: own}}}}],
          clusters: [{{name: k, cluster: {{server: \"https://{}\", certificate-authority: {}}}}}]}}",
        server.address,
        pki.join("ca.crt").display()
    );
    std::fs::write(&kubeconfig, config).unwrap();
    let upstream = Upstream::from_kubeconfig(&kubeconfig).unwrap();
    let proxy = Proxy::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), upstream, Some(certificate)).unwrap();

    // A second proxy, in the clear, is the client: it goes by the kubeconfig that the first one writes.
    let written = folder.path().join("through");
    for (token, who) in [("mine", "Bearer x"), ("", "Bearer x")] {
        proxy.write_kubeconfig(&written, token).unwrap();
        let client = Proxy::start(Upstream::from_kubeconfig(&written).unwrap()).unwrap();
        let answer = ask(&client, "PATCH", STATUS).await.unwrap();
        assert_eq!(text(answer).await, format!("PATCH {STATUS} {who} {{}}"));
    }
    // Somebody whose authority is another one is not believed.
    make_pki(&folder.path().join("other"));
    let config = std::fs::read_to_string(&kubeconfig).unwrap().replace("/pki/", "/other/");
    std::fs::write(&kubeconfig, config).unwrap();
    let stranger = Proxy::start(Upstream::from_kubeconfig(&kubeconfig).unwrap()).unwrap();
    ask(&stranger, "GET", "/").await.unwrap_err();
}

/// As `e2e/cluster/parts/pki.sh` makes them.
fn make_pki(folder: &Path) {
    let script = r#"
        mkdir -p "$PKI" && cd "$PKI"
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=berth-e2e \
          -addext keyUsage=critical,keyCertSign,digitalSignature -keyout ca.key -out ca.crt
        openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=kube-apiserver \
          -keyout apiserver.key -out apiserver.csr
        printf 'keyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth,serverAuth\nsubjectAltName=IP:127.0.0.1\n' >extensions
        openssl x509 -req -in apiserver.csr -CA ca.crt -CAkey ca.key -days 2 -set_serial 2 -extfile extensions -out apiserver.crt"#;
    let made = Command::new("sh").args(["-ec", script]).env("PKI", folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
