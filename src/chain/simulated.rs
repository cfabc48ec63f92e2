//! An API server small enough for a test: it keeps objects with a chain, what else their passes write, and tombstones; it can
//! refuse a path or fall silent. And a replica beside it, with its ledger.
//!
//! Owns: what a pass can meet at the other end of its client. Must never: do what a controller would do.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fmt::Debug,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::http::{Method, Request, Response, StatusCode};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::{
    ledger::{Config, Kind, Ledger, Record, simulated::Database},
    tally,
};

#[derive(Default)]
struct Kept {
    objects: BTreeMap<String, Value>,
    requests: Vec<String>,
    version: u64,
    refused: Option<(u16, &'static str)>,
    /// How many more writes are answered, and what becomes of the one after them.
    left: Option<(usize, Cut)>,
    has_lost: bool,
    writes: usize,
    faults: usize,
    /// Every end of a chain that was shown.
    heads: BTreeSet<String>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        tally::tell(1, self.faults, self.heads.len());
    }
}

/// What becomes of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It never arrives, and nobody hears anything any more.
    Before,
    /// It is carried out, and nobody hears anything any more.
    After,
    /// It is carried out, and its answer is lost; whoever asked lives on.
    Lost,
}

impl Cut {
    pub(crate) const ALL: [Self; 3] = [Self::Before, Self::After, Self::Lost];
}

/// How a piece of work ended that writes.
pub(crate) enum Ended<T> {
    /// As ever.
    Done(T),
    /// It gave up because the answer to a write was lost.
    AnswerLost,
    /// The server fell silent in it, and its process with it. The server answers again.
    Silent,
}

/// See the module's comment. Clones are the same server.
#[derive(Clone, Default)]
pub(crate) struct Server(Arc<Mutex<Kept>>, Arc<Notify>);

impl Server {
    pub(crate) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap_or_default();
                let is_write = parts.method != Method::GET && !parts.uri.path().contains("/events");
                let cut = server.cut(is_write);
                match cut {
                    Some(Cut::Before) => server.silence().await,
                    Some(Cut::After) => {
                        server.answer(&parts.method, parts.uri.path(), &body);
                        server.silence().await
                    }
                    Some(Cut::Lost) | None => {}
                }
                let (mut code, mut answer) = server.answer(&parts.method, parts.uri.path(), &body);
                if cut == Some(Cut::Lost) {
                    (code, answer) = status(504, "the answer is lost");
                }
                let response = Response::builder().status(code).header("content-type", "application/json");
                Ok::<_, Infallible>(response.body(Body::from(answer.to_string().into_bytes())).unwrap())
            }
        });
        Client::new(service, "default")
    }

    /// After so many more writes, this becomes of the next one; if it is cut off, everything that follows waits for ever.
    pub(crate) fn cut_after(&self, writes: usize, how: Cut) {
        self.kept().left = Some((writes, how));
    }

    /// Answers again, also where it was to fall silent and has not.
    pub(crate) fn answers(&self) {
        self.kept().left = None;
    }

    /// Works until that is done, or cut. No other error is expected of it.
    pub(crate) async fn through_a_cut<T, E: Debug>(&self, work: impl Future<Output = Result<T, E>>) -> Ended<T> {
        tokio::select! {
            done = work => match done {
                Ok(done) => Ended::Done(done),
                Err(_) if self.has_lost() => Ended::AnswerLost,
                Err(error) => panic!("{error:?}"),
            },
            () = self.1.notified() => {
                self.answers();
                Ended::Silent
            }
        }
    }

    /// How many writes there were.
    pub(crate) fn writes(&self) -> usize {
        self.kept().writes
    }

    /// Whether the answer to a write was lost since this was asked the last time.
    pub(crate) fn has_lost(&self) -> bool {
        std::mem::take(&mut self.kept().has_lost)
    }

    fn cut(&self, is_write: bool) -> Option<Cut> {
        let mut kept = self.kept();
        kept.writes += usize::from(is_write);
        match &mut kept.left {
            Some((left, how)) if is_write && *left == 0 => {
                let how = *how;
                kept.has_lost = how == Cut::Lost;
                kept.faults += 1;
                kept.left = if how == Cut::Lost { None } else { Some((0, Cut::Before)) };
                Some(how)
            }
            Some((left, _)) if is_write => {
                *left -= 1;
                None
            }
            _ => None,
        }
    }

    async fn silence(&self) {
        self.1.notify_one();
        std::future::pending().await
    }

    /// Puts an object there, as somebody else than Berth. The API server sets a status's defaults.
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        if is_chained(path) && object["status"].is_null() {
            object["status"] = json!({"observedGeneration": -1, "ledger": {"sequence": 0, "head": "", "pending": []}});
        }
        self.kept().keep(path, object);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.kept().objects.get(path).cloned()
    }

    pub(crate) fn remove(&self, path: &str) {
        self.kept().objects.remove(path);
    }

    /// From now on, every write to a RoleBinding is answered so.
    pub(crate) fn refuse(&self, code: u16, message: &'static str) {
        self.kept().refused = Some((code, message));
    }

    pub(crate) fn refuse_nothing(&self) {
        self.kept().refused = None;
    }

    /// The RoleBindings that are there.
    pub(crate) fn bindings(&self) -> Vec<Value> {
        self.kept().below("/rolebindings")
    }

    /// The tombstones that are there.
    pub(crate) fn tombstones(&self) -> usize {
        self.kept().below("/configmaps/").len()
    }

    /// The requests since the last time, but for Events.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.kept().requests)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap()
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let mut kept = self.kept();
        if path.contains("/events") {
            return (StatusCode::CREATED, json!({"metadata": {}, "involvedObject": {}}));
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        kept.requests.push(format!("{method} {name}"));
        if let Some((code, message)) = kept.refused.filter(|_| *method != Method::GET && path.contains("/rolebindings"))
        {
            return status(code, message);
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        match *method {
            Method::GET if name == "rolebindings" => {
                let items = kept.below("/rolebindings");
                (StatusCode::OK, json!({"kind": "RoleBindingList", "apiVersion": "v1", "metadata": {}, "items": items}))
            }
            Method::GET if name == "configmaps" => {
                let items = kept.below("/configmaps/");
                (StatusCode::OK, json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {}, "items": items}))
            }
            Method::GET => match kept.objects.get(path) {
                Some(object) => (StatusCode::OK, object.clone()),
                None => status(404, "not found"),
            },
            Method::PATCH if body.is_array() => {
                let path = path.trim_end_matches("/status").to_owned();
                let Some(mut object) = kept.objects.get(&path).cloned() else { return status(404, "not found") };
                let patch: json_patch::Patch = serde_json::from_value(body).unwrap();
                if json_patch::patch(&mut object, &patch).is_err() {
                    return status(422, "the test did not hold");
                }
                let is_gone = !object["metadata"]["deletionTimestamp"].is_null()
                    && object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
                if is_gone {
                    kept.objects.remove(&path);
                    return (StatusCode::OK, object);
                }
                (StatusCode::OK, kept.keep(&path, object))
            }
            // A release: only over what was seen.
            Method::PATCH if path.contains("/tenantcontainers/") => {
                let Some(mut object) = kept.objects.get(path).cloned() else { return status(404, "not found") };
                if object["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] {
                    return status(409, "it has changed");
                }
                object["spec"]["release"] = body["spec"]["release"].clone();
                (StatusCode::OK, kept.keep(path, object))
            }
            Method::PATCH if is_chained(path) => {
                let Some(mut object) = kept.objects.get(path).cloned() else { return status(404, "not found") };
                json_patch::merge(&mut object, &body);
                (StatusCode::OK, kept.keep(path, object))
            }
            Method::PUT => (StatusCode::OK, kept.keep(path, body)),
            Method::POST => {
                let mut object = body;
                let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap_or_default());
                if kept.objects.contains_key(&path) {
                    return status(409, "it is there");
                }
                object["metadata"]["uid"] = json!(format!("uid-of-{path}"));
                (StatusCode::CREATED, kept.keep(&path, object))
            }
            Method::PATCH => {
                let there = kept.objects.get(path).map(|object| object["metadata"]["uid"].clone());
                let asked = body["metadata"]["uid"].clone();
                if !asked.is_null() && there.as_ref().is_some_and(|there| *there != asked) {
                    return status(409, "uid mismatch");
                }
                let mut object = body;
                object["metadata"]["uid"] = there.unwrap_or_else(|| json!(format!("uid-of-{name}")));
                (StatusCode::OK, kept.keep(path, object))
            }
            Method::DELETE => {
                let Some(object) = kept.objects.get(path).cloned() else { return status(404, "not found") };
                let asked = &body["preconditions"]["uid"];
                if !asked.is_null() && *asked != object["metadata"]["uid"] {
                    return status(409, "uid mismatch");
                }
                let held = object["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
                if held {
                    let mut object = object;
                    object["metadata"]["deletionTimestamp"] = json!("2030-01-01T12:00:00Z");
                    return (StatusCode::OK, kept.keep(path, object));
                }
                kept.objects.remove(path);
                status(200, "deleted")
            }
            _ => status(405, "not in this test"),
        }
    }
}

/// Whether what is there has a chain.
fn is_chained(path: &str) -> bool {
    ["/accessgrants/", "/deployments/", "/tenantquotas/"].iter().any(|kind| path.contains(kind))
}

impl Kept {
    fn keep(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if let Some(head) = object["status"]["ledger"]["head"].as_str().filter(|head| !head.is_empty()) {
            self.heads.insert(head.to_owned());
        }
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn below(&self, part: &str) -> Vec<Value> {
        self.objects.iter().filter(|(path, _)| path.contains(part)).map(|(_, object)| object.clone()).collect()
    }
}

fn status(code: u16, message: &str) -> (StatusCode, Value) {
    let word = if code < 400 { "Success" } else { "Failure" };
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": word, "message": message, "reason": if code == 404 { "NotFound" } else { "" }, "code": code});
    (StatusCode::from_u16(code).unwrap(), body)
}

/// What there is of operators, one after the other: the volumes of all of them, and the ledger of the one that runs.
pub(crate) struct Replica {
    pub(crate) database: Database,
    pub(crate) ledger: Ledger,
    epoch: Arc<AtomicU64>,
    spools: Vec<TempDir>,
}

impl Replica {
    /// The first one.
    pub(crate) async fn new(database: Database) -> Self {
        let spool = TempDir::new().unwrap();
        let ledger = open(&database, &spool, 1).await;
        Self { database, ledger, epoch: Arc::new(AtomicU64::new(1)), spools: vec![spool] }
    }

    /// The epoch that may be written under now.
    pub(crate) fn epoch(&self) -> Box<dyn Fn() -> Option<u64> + Send + Sync> {
        let epoch = Arc::clone(&self.epoch);
        Box::new(move || Some(epoch.load(Ordering::Relaxed)).filter(|epoch| *epoch > 0))
    }

    /// It leads, or nobody does.
    pub(crate) fn leads(&self, leads: bool) {
        self.epoch.store(if leads { self.spools.len() as u64 } else { 0 }, Ordering::Relaxed);
    }

    /// Another one leads from now on, with a volume of its own. What the one before has taken is brought by itself, as long as its
    /// process lives.
    pub(crate) async fn takes_over(&mut self) {
        let spool = TempDir::new().unwrap();
        let number = self.spools.len() as u64 + 1;
        self.epoch.store(number, Ordering::Relaxed);
        let ledger = open(&self.database, &spool, number).await;
        std::mem::replace(&mut self.ledger, ledger).close().await;
        self.spools.push(spool);
    }

    /// The process ends. Its volume can be locked once: nobody else may have its ledger when another one begins.
    pub(crate) async fn ends(&mut self) {
        let elsewhere = TempDir::new().unwrap();
        let idle = open(&Database::default(), &elsewhere, 0).await;
        std::mem::replace(&mut self.ledger, idle).close().await;
    }

    /// Another process is started with the same volume: what the one before had acknowledged is there.
    pub(crate) async fn begins(&mut self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
        self.ledger = open(&self.database, self.spools.last().unwrap(), self.spools.len() as u64).await;
    }

    /// Until the database has everything that the spool holds.
    pub(crate) async fn replayed(&self) {
        for _ in 0..2_000 {
            if self.ledger.is_current() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the spool is never replayed");
    }

    /// The records that the database has, along the line.
    pub(crate) fn line(&self) -> Vec<Record> {
        let line = self.database.line();
        let mut records = self.database.records();
        records.retain(|record| line.contains(&record.hash().to_string()));
        records.sort_by_key(|record| record.envelope().seq);
        records
    }

    /// Reason and actor of each of them.
    pub(crate) fn told(&self) -> Vec<String> {
        let words = |record: &Record| {
            let envelope = record.envelope();
            format!("{} {}", envelope.reason, String::from(envelope.actor.clone()))
        };
        self.line().iter().map(words).collect()
    }
}

/// The generations of an object's spec that `records` tell of: by what followed them, as unseen, or as what there was in the end.
///
/// # Panics
/// Where one is told of both ways, or as unseen twice.
pub(crate) fn generations(records: &[Record]) -> BTreeSet<i64> {
    let of = |record: &Record| record.envelope().generation;
    let (unseen, mut told): (Vec<&Record>, Vec<&Record>) =
        records.iter().partition(|record| record.envelope().kind == Kind::Unobserved);
    // What came of targets is told before what answers to a generation.
    told.retain(|record| record.envelope().reason != "TargetsTold");
    let mut all: BTreeSet<i64> = told.into_iter().map(of).collect();
    for record in &unseen {
        let details: Value = serde_json::from_str(record.details().unwrap()).unwrap();
        let (count, next) = (details["unseen"].as_i64().unwrap(), of(record));
        for generation in next - count..next {
            assert!(all.insert(generation), "generation {generation} is told of twice: {}", details["message"]);
        }
    }
    all.extend(unseen.into_iter().map(of).max());
    all
}

async fn open(database: &Database, spool: &TempDir, number: u64) -> Ledger {
    let config = Config {
        budget: Duration::from_millis(30),
        ..Config::new(None, spool.path().to_owned(), format!("berth-{number}"))
    };
    Ledger::simulated(database, &config).await
}
