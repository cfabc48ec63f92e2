//! An API server small enough for a test: it keeps RoleBindings, grants and tombstones, and can refuse a path or fall silent.
//!
//! Owns: what a pass can meet at the other end of its client. Must never: do what a controller would do.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::http::{Method, Request, Response, StatusCode};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::sync::Notify;

#[derive(Default)]
struct Kept {
    objects: BTreeMap<String, Value>,
    requests: Vec<String>,
    version: u64,
    refused: Option<(u16, &'static str)>,
    /// How many more writes are answered, and whether the one after them is carried out.
    left: Option<(usize, Cut)>,
    writes: usize,
}

/// What becomes of the write after which nobody hears anything any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// It never arrives.
    Before,
    /// It is carried out, and its answer is lost.
    After,
}

/// See the module's comment. Clones are the same server.
#[derive(Clone, Default)]
pub(super) struct Server(Arc<Mutex<Kept>>, Arc<Notify>);

impl Server {
    pub(super) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap_or_default();
                let is_write = parts.method != Method::GET && !parts.uri.path().contains("/events");
                match server.cut(is_write) {
                    Some(Cut::Before) => server.silence().await,
                    Some(Cut::After) => {
                        server.answer(&parts.method, parts.uri.path(), &body);
                        server.silence().await
                    }
                    None => {}
                }
                let (code, answer) = server.answer(&parts.method, parts.uri.path(), &body);
                let response = Response::builder().status(code).header("content-type", "application/json");
                Ok::<_, Infallible>(response.body(Body::from(answer.to_string().into_bytes())).unwrap())
            }
        });
        Client::new(service, "default")
    }

    /// After so many more writes, the next one is cut off, and everything that follows waits for ever.
    pub(super) fn cut_after(&self, writes: usize, how: Cut) {
        self.kept().left = Some((writes, how));
    }

    /// Answers again.
    pub(super) fn answers(&self) {
        self.kept().left = None;
    }

    /// Until it has fallen silent.
    pub(super) async fn is_silent(&self) {
        self.1.notified().await;
    }

    /// How many writes there were.
    pub(super) fn writes(&self) -> usize {
        self.kept().writes
    }

    fn cut(&self, is_write: bool) -> Option<Cut> {
        let mut kept = self.kept();
        kept.writes += usize::from(is_write);
        match &mut kept.left {
            Some((left, how)) if is_write && *left == 0 => {
                let how = *how;
                kept.left = Some((0, Cut::Before));
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
    pub(super) fn put(&self, path: &str, mut object: Value) {
        if path.contains("/accessgrants/") && object["status"].is_null() {
            object["status"] = json!({"observedGeneration": -1, "ledger": {"sequence": 0, "head": "", "pending": []}});
        }
        self.kept().keep(path, object);
    }

    pub(super) fn get(&self, path: &str) -> Option<Value> {
        self.kept().objects.get(path).cloned()
    }

    pub(super) fn remove(&self, path: &str) {
        self.kept().objects.remove(path);
    }

    /// From now on, every write to a RoleBinding is answered so.
    pub(super) fn refuse(&self, code: u16, message: &'static str) {
        self.kept().refused = Some((code, message));
    }

    pub(super) fn refuse_nothing(&self) {
        self.kept().refused = None;
    }

    /// The RoleBindings that are there.
    pub(super) fn bindings(&self) -> Vec<Value> {
        self.kept().below("/rolebindings")
    }

    /// The tombstones that are there.
    pub(super) fn tombstones(&self) -> usize {
        self.kept().below("/configmaps/").len()
    }

    /// The requests since the last time, but for Events.
    pub(super) fn requests(&self) -> Vec<String> {
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
            Method::PATCH if path.contains("/accessgrants/") => {
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
                    object["metadata"]["deletionTimestamp"] = json!(super::NOON);
                    return (StatusCode::OK, kept.keep(path, object));
                }
                kept.objects.remove(path);
                status(200, "deleted")
            }
            _ => status(405, "not in this test"),
        }
    }
}

impl Kept {
    fn keep(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
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
