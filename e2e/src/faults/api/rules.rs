//! Which request is hit, and by what.
//!
//! Owns: the decision. Must never: do anything (no connection here).

use std::time::Duration;

use hyper::{Method, Uri};
use serde_json::json;

use super::State;
use crate::faults::Dice;

/// What happens to a request instead of, or before, what should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// It is passed on so much later.
    Delay(Duration),
    /// It is not answered until it is fair again; then it is passed on.
    Stall,
    /// The API server never sees it; the connection is cut.
    CutBefore,
    /// The API server has done it; its answer is lost, and so is the connection.
    CutAfter,
    /// The API server has done it; its answer waits until it is fair again ([`Counts::stalled`](super::Counts)). Who is
    /// killed meanwhile never learns of it.
    StallAfter,
    /// The API server never sees it, and this is the answer: 409, 429, 500, 504, or another code.
    Answer {
        /// HTTP status.
        code: u16,
        /// Seconds, as 429 has them.
        retry_after: Option<u32>,
    },
}

/// Hits requests, in the order in which rules were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// GET, PATCH and so on; empty: any.
    pub method: String,
    /// Part of path and query; empty: any.
    pub path: String,
    /// The first of the matching requests that is hit, from 1.
    pub from: u64,
    /// How many from there on.
    pub times: u64,
    /// By what.
    pub act: Act,
}

impl Rule {
    /// The next such request.
    pub fn once(method: &str, path: &str, act: Act) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), from: 1, times: 1, act }
    }

    /// The `nth` such request, from 1: "the third PATCH of …/status".
    #[must_use]
    pub fn nth(self, nth: u64) -> Self {
        Self { from: nth, ..self }
    }

    /// So many in a row.
    #[must_use]
    pub fn times(self, times: u64) -> Self {
        Self { times, ..self }
    }
}

/// Which faults come at random: what hits a request is a function of the seed and of the request's number alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Random {
    /// Same seed, same faults.
    pub seed: u64,
    /// Requests of a thousand.
    pub per_mille: u64,
    /// Only requests with this in their path (empty: all) are hit and counted.
    pub path: String,
    /// Only those that write are hit and counted.
    pub writes_only: bool,
}

/// What happens to a watch's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchAct {
    /// They are kept back, in order: the watch is silently stalled.
    Hold,
    /// They come, and so do those that follow.
    Release,
    /// The next two come the other way round. Of events that are held, the last two.
    Reorder,
    /// So many are swallowed.
    Drop(u64),
    /// The watch ends with 410 Gone.
    Gone,
    /// The watch ends, as the API server ends it now and then.
    End,
}

impl State {
    /// What hits this request.
    pub(super) fn decide(&mut self, method: &Method, uri: &Uri) -> Option<Act> {
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        let writes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        self.counts.requests += 1;
        self.counts.writes += u64::from(writes);
        let mut hit = None;
        self.rules.retain_mut(|(rule, seen)| {
            let matches = (rule.method.is_empty() || method.as_str().eq_ignore_ascii_case(&rule.method))
                && path.contains(&rule.path);
            *seen += u64::from(matches);
            if hit.is_none() && matches && (rule.from..rule.from + rule.times).contains(seen) {
                hit = Some((rule.act, format!("{method} {path}: {:?}", rule.act)));
            }
            *seen + 1 < rule.from + rule.times
        });
        if let Some((random, place)) = &mut self.random
            && path.contains(&random.path)
            && (writes || !random.writes_only)
        {
            *place += 1;
            let chance = random.act(*place, writes);
            if let (None, Some(act)) = (&hit, chance) {
                hit = Some((act, format!("seed {} request {place}: {method} {path}: {act:?}", random.seed)));
            }
        }
        let (act, line) = hit?;
        self.log.add(line);
        Some(act)
    }
}

impl Random {
    fn act(&self, place: u64, writes: bool) -> Option<Act> {
        let mut dice = Dice::at(self.seed, place);
        if dice.below(1_000) >= self.per_mille {
            return None;
        }
        let answer = |code, retry_after| Act::Answer { code, retry_after };
        Some(match dice.below(8) {
            0 | 1 => Act::CutBefore,
            2 | 3 => Act::CutAfter,
            4 => Act::Delay(Duration::from_millis(20 + dice.below(1_000))),
            5 if writes => answer(409, None),
            6 => answer(429, Some(1)),
            7 => answer(504, None),
            _ => answer(500, None),
        })
    }
}

/// The API server's way to say that it did not do it.
pub(super) fn failure(code: u16, retry_after: Option<u32>) -> String {
    let reason = match code {
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "Unknown",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": "a fault on command", "details": {"retryAfterSeconds": retry_after.unwrap_or(0)},
    })
    .to_string()
}
