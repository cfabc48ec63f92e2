//! An API server small enough for a test: it keeps objects, merges what is applied, tests what a patch tests, and can
//! stop answering at any write, before or after it was carried out.
//!
//! Owns: what a pass can meet at the other end of its client. Must never: do what a controller would do ([`World`] does).
//!
//! [`World`]: super::objects::World

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use futures::future;
use kube::{Client, client::Body};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::tally;

/// What happens at the write that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The operator ends before it.
    Before,
    /// It is carried out, and the operator ends before it hears of it.
    After,
    /// It is carried out, and the answer is lost on its way.
    Lost,
    /// It is not carried out; this status code is the answer.
    Answer(u16),
    /// It is not carried out, and the connection is reset.
    Reset,
    /// The operator stands still before it, until [`Server::go_on`].
    Hold,
}

/// What the server refuses from now on.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    /// Part of the path.
    pub(super) path: &'static str,
    pub(super) message: &'static str,
}

#[derive(Default)]
struct Kept {
    objects: BTreeMap<String, Value>,
    version: u64,
    /// Writes until the cut, and how many in a row it meets.
    left: Option<(usize, Cut, u32)>,
    /// Writes that a cut refused and that were not made since.
    refused: BTreeSet<String>,
    refusals: Vec<Refusal>,
    writes: Vec<String>,
    statuses: Vec<Value>,
    faults: usize,
    /// It stands for what a watch has told of: nobody lives on it.
    is_copy: bool,
}

impl Kept {
    /// The head of every chain, each time that a status showed one.
    fn heads(&self) -> impl Iterator<Item = &str> {
        let heads = self.statuses.iter().filter_map(|object| object["status"]["ledger"]["head"].as_str());
        heads.filter(|head| !head.is_empty())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if !self.is_copy {
            tally::tell(1, self.faults, self.heads().collect::<BTreeSet<_>>().len());
        }
    }
}

/// See the module's comment. Clones are the same server.
#[derive(Clone, Default)]
pub(super) struct Server {
    kept: Arc<Mutex<Kept>>,
    pub(super) is_cut: Arc<Notify>,
    goes_on: Arc<Notify>,
}

impl Server {
    pub(super) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { server.answer(request).await }
        });
        Client::new(service, "default")
    }

    /// At the write after this many the server does as told.
    pub(super) fn cut_after(&self, writes: usize, how: Cut) {
        self.cut_from(writes, how, 1);
    }

    /// At the write after this many, and at those that follow, so many in all.
    pub(super) fn cut_from(&self, writes: usize, how: Cut, times: u32) {
        self.kept().left = Some((writes, how, times));
    }

    /// Whoever stands still before a write carries it out now.
    pub(super) fn go_on(&self) {
        self.goes_on.notify_one();
    }

    /// Another server with the objects that this one has now.
    pub(super) fn copy(&self) -> Self {
        let copy = Self::default();
        copy.kept().objects.clone_from(&self.kept().objects);
        copy.kept().is_copy = true;
        copy
    }

    /// No cut comes any more.
    pub(super) fn never_cut(&self) {
        self.kept().left = None;
    }

    /// Whether the cut has come.
    pub(super) fn was_cut(&self) -> bool {
        self.kept().left.is_none()
    }

    /// What was refused by a cut since this was asked last, and was not made since.
    pub(super) fn refused(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.kept().refused)
    }

    pub(super) fn refuse(&self, path: &'static str, message: &'static str) {
        self.kept().refusals.push(Refusal { path, message });
    }

    pub(super) fn refuse_nothing(&self) {
        self.kept().refusals.clear();
    }

    /// Every write so far: method and path.
    pub(super) fn writes(&self) -> Vec<String> {
        self.kept().writes.clone()
    }

    /// Every object whose status was written, as it was then.
    pub(super) fn shown(&self) -> Vec<Value> {
        self.kept().statuses.clone()
    }

    /// The head of every chain, each time that a status showed one.
    pub(super) fn heads(&self) -> Vec<String> {
        self.kept().heads().map(ToOwned::to_owned).collect()
    }

    /// The object at a path.
    pub(super) fn get(&self, path: &str) -> Option<Value> {
        self.read(path)
    }

    /// What is below a collection's path.
    pub(super) fn list(&self, collection: &str) -> Vec<Value> {
        self.read_all(collection, |_| true)
    }

    /// The object at a path, read without a copy of it.
    pub(super) fn read<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        self.kept().objects.get(path).map(|object| T::deserialize(object).unwrap())
    }

    /// What is below a collection's path and is wanted, read without a copy of it.
    pub(super) fn read_all<T: DeserializeOwned>(&self, collection: &str, is_wanted: fn(&Value) -> bool) -> Vec<T> {
        let kept = self.kept();
        let all = kept.objects.range(format!("{collection}/")..format!("{collection}0"));
        all.filter(|(_, object)| is_wanted(object)).map(|(_, object)| T::deserialize(object).unwrap()).collect()
    }

    /// What tells one state of what is below a collection's path from another.
    pub(super) fn versions(&self, collection: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (path, object) in self.kept().objects.range(format!("{collection}/")..format!("{collection}0")) {
            (path, object["metadata"]["resourceVersion"].as_str()).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Somebody else than Berth puts an object there, or changes it.
    pub(super) fn put(&self, path: &str, mut object: Value) {
        let mut kept = self.kept();
        kept.version += 1;
        object["metadata"]["resourceVersion"] = json!(kept.version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(Uuid::new_v4());
        }
        kept.objects.insert(path.to_owned(), object);
    }

    /// Somebody else changes what is there.
    pub(super) fn change(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.get(path).unwrap_or_else(|| panic!("there is no {path}"));
        change(&mut object);
        self.put(path, object);
    }

    pub(super) fn remove(&self, path: &str) {
        self.kept().objects.remove(path);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap()
    }

    async fn answer(&self, request: Request<Body>) -> io::Result<Response<Body>> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let body: Value = match body.collect_bytes().await.unwrap() {
            bytes if bytes.is_empty() => Value::Null,
            bytes => serde_json::from_slice(&bytes).unwrap(),
        };
        if path.ends_with("/events") {
            let answer = if head.method == Method::GET { json!({"metadata": {}, "items": []}) } else { body };
            return Ok(response(StatusCode::OK, &answer));
        }
        let cut = if head.method == Method::GET { None } else { self.count() };
        match cut {
            Some(Cut::Before) => return self.never().await,
            // Nobody comes back for an Event alone.
            _ if path.contains("/events/") => {}
            Some(Cut::Answer(_) | Cut::Reset) => drop(self.kept().refused.insert(written(&head.method, &path, &body))),
            _ if head.method == Method::GET => {}
            _ => drop(self.kept().refused.remove(&written(&head.method, &path, &body))),
        }
        match cut {
            Some(Cut::Answer(code)) => return Ok(response(code_of(code), &status(code, "Faulty", "not now"))),
            Some(Cut::Reset) => return Err(io::ErrorKind::ConnectionReset.into()),
            Some(Cut::Hold) => {
                self.is_cut.notify_one();
                self.goes_on.notified().await;
            }
            Some(Cut::Before | Cut::After | Cut::Lost) | None => {}
        }
        let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let answer = self.carry_out(&head.method, kind, &path, body);
        match cut {
            Some(Cut::After) => return self.never().await,
            Some(Cut::Lost) => {
                return Ok(response(StatusCode::GATEWAY_TIMEOUT, &status(504, "Timeout", "the answer was lost")));
            }
            _ => {}
        }
        Ok(match answer {
            Ok(object) => response(StatusCode::OK, &object),
            Err((404, message)) => {
                let mut status = status(404, "NotFound", &message);
                status["details"] = json!({"name": path.trim_end_matches("/status").rsplit('/').next()});
                response(StatusCode::NOT_FOUND, &status)
            }
            Err((code, message)) => response(code_of(code), &status(code, "Invalid", &message)),
        })
    }

    fn count(&self) -> Option<Cut> {
        let mut kept = self.kept();
        let (left, how, times) = kept.left?;
        kept.left = match left {
            0 => (times > 1).then(|| (0, how, times - 1)),
            _ => Some((left - 1, how, times)),
        };
        kept.faults += usize::from(left == 0);
        (left == 0).then_some(how)
    }

    /// Something else goes wrong, which is no answer of this server.
    pub(super) fn another_fault(&self) {
        self.kept().faults += 1;
    }

    async fn never(&self) -> io::Result<Response<Body>> {
        self.is_cut.notify_one();
        future::pending().await
    }

    fn carry_out(&self, method: &Method, kind: &str, path: &str, body: Value) -> Result<Value, (u16, String)> {
        let mut kept = self.kept();
        let place = ["/status", "/resize"].iter().find_map(|part| path.strip_suffix(part)).unwrap_or(path).to_owned();
        let plural = place.rsplit('/').next().unwrap_or_default();
        let lists = ["configmaps", "statefulsets", "persistentvolumeclaims", "tenantcontainers"];
        if *method == Method::GET && lists.contains(&plural) {
            // Of one namespace, or of all.
            let is_in = |path: &str| match place.contains("/namespaces/") {
                true => path.strip_prefix(&place).is_some_and(|rest| rest.starts_with('/')),
                false => path.split('/').rev().nth(1) == Some(plural),
            };
            let items: Vec<Value> =
                kept.objects.iter().filter(|(path, _)| is_in(path)).map(|(_, object)| object.clone()).collect();
            return Ok(json!({"metadata": {}, "items": items}));
        }
        if *method == Method::GET {
            return kept.objects.get(&place).cloned().ok_or((404, format!("{place} not found")));
        }
        kept.writes.push(format!("{method} {path}"));
        if let Some(refusal) = kept.refusals.iter().find(|refusal| path.contains(refusal.path)) {
            return Err((422, refusal.message.to_owned()));
        }
        kept.version += 1;
        let version = kept.version.to_string();
        let before = kept.objects.get(&place).cloned();
        let mut after = match (method, kind) {
            (&Method::DELETE, _) => {
                let before = before.ok_or((404, "not found".to_owned()))?;
                let wanted = &body["preconditions"]["uid"];
                if !wanted.is_null() && *wanted != before["metadata"]["uid"] {
                    return Err((409, "the uid is another one".to_owned()));
                }
                let wanted = &body["preconditions"]["resourceVersion"];
                if !wanted.is_null() && *wanted != before["metadata"]["resourceVersion"] {
                    return Err((409, "the version is another one".to_owned()));
                }
                kept.objects.remove(&place);
                return Ok(before);
            }
            (&Method::POST, _) => {
                let place = format!("{place}/{}", body["metadata"]["name"].as_str().unwrap());
                if kept.objects.contains_key(&place) {
                    return Err((409, format!("{place} already exists")));
                }
                let mut object = body;
                object["metadata"]["uid"] = json!(Uuid::new_v4());
                object["metadata"]["resourceVersion"] = json!(version);
                kept.objects.insert(place, object.clone());
                return Ok(object);
            }
            (&Method::PUT, _) => {
                let before = before.ok_or((404, "not found".to_owned()))?;
                if body["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"] {
                    return Err((409, "the version is another one".to_owned()));
                }
                let mut object = body;
                object["metadata"]["uid"] = before["metadata"]["uid"].clone();
                object
            }
            (_, "application/apply-patch+yaml") => applied(before, body)?,
            (_, "application/json-patch+json") => {
                let mut object = before.ok_or((404, "not found".to_owned()))?;
                let patch: json_patch::Patch = serde_json::from_value(body).unwrap();
                json_patch::patch(&mut object, &patch).map_err(|error| (422, error.to_string()))?;
                object
            }
            (_, "application/strategic-merge-patch+json") if path.ends_with("/resize") => {
                resized(before.ok_or((404, "not found".to_owned()))?, &body)?
            }
            (_, "application/merge-patch+json") => {
                let mut object = before.ok_or((404, "not found".to_owned()))?;
                json_patch::merge(&mut object, &body);
                object
            }
            other => panic!("a request that this server does not know: {other:?}"),
        };
        after["metadata"]["resourceVersion"] = json!(version);
        if path.ends_with("/status") {
            kept.statuses.push(after.clone());
        }
        let metadata = &after["metadata"];
        let is_free = metadata["finalizers"].as_array().is_none_or(Vec::is_empty);
        if !metadata["deletionTimestamp"].is_null() && is_free {
            kept.objects.remove(&place);
        } else {
            kept.objects.insert(place, after.clone());
        }
        Ok(after)
    }
}

/// Server-side apply, as far as a child of Berth shows a difference.
fn applied(before: Option<Value>, mut wanted: Value) -> Result<Value, (u16, String)> {
    let fields = fields(&wanted["spec"]);
    let ours = json!({"manager": "berth", "operation": "Apply", "fieldsV1": {"f:spec": fields}});
    let asked = wanted["metadata"]["uid"].take();
    let Some(mut object) = before else {
        if !asked.is_null() {
            return Err((409, "there is no object of this uid".to_owned()));
        }
        wanted["metadata"]["uid"] = json!(Uuid::new_v4());
        wanted["metadata"]["generation"] = json!(1);
        wanted["metadata"]["managedFields"] = json!([ours]);
        return Ok(wanted);
    };
    if !asked.is_null() && asked != object["metadata"]["uid"] {
        return Err((409, "the uid is another one".to_owned()));
    }
    if object.get("spec") != wanted.get("spec") {
        let generation = object["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        object["metadata"]["generation"] = json!(generation);
    }
    if let Some(spec) = wanted.get_mut("spec") {
        object["spec"] = spec.take();
    }
    for part in ["labels", "annotations", "ownerReferences"] {
        object["metadata"][part] = wanted["metadata"][part].take();
        if object["metadata"][part].is_null() {
            object["metadata"].as_object_mut().unwrap().remove(part);
        }
    }
    object["metadata"]["managedFields"] = json!([ours]);
    Ok(object)
}

/// A pod whose container gets other resources, while it runs.
fn resized(mut pod: Value, body: &Value) -> Result<Value, (u16, String)> {
    if body["metadata"]["uid"] != pod["metadata"]["uid"] {
        return Err((409, "the uid is another one".to_owned()));
    }
    let generation = pod["metadata"]["generation"].as_i64().unwrap_or(1) + 1;
    pod["metadata"]["generation"] = json!(generation);
    json_patch::merge(&mut pod["spec"]["containers"][0]["resources"], &body["spec"]["containers"][0]["resources"]);
    Ok(pod)
}

/// The fields of an object, as `managedFields` lists them.
pub(super) fn fields(object: &Value) -> Value {
    let Some(object) = object.as_object() else { return json!({}) };
    Value::Object(object.iter().map(|(key, value)| (format!("f:{key}"), fields(value))).collect::<Map<_, _>>())
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
}

/// What a write is of: that of a create is what it names, so that a replacement makes up for it.
fn written(method: &Method, path: &str, body: &Value) -> String {
    match body["metadata"]["name"].as_str() {
        Some(name) if *method == Method::POST => format!("{path}/{name}"),
        _ => path.to_owned(),
    }
}

fn code_of(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap()
}

fn response(code: StatusCode, body: &Value) -> Response<Body> {
    Response::builder()
        .status(code)
        .header("Retry-After", "1")
        .body(Body::from(serde_json::to_vec(body).unwrap()))
        .unwrap()
}
