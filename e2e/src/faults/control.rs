//! Changing the weather from a shell or another process: lines of words over a Unix socket, one answer for each.
//!
//! Owns: the words. An answer is `ok`, perhaps with JSON behind it, or `error` and why. Must never: listen anywhere else
//! than on a socket that only its owner may open.
//!
//! | to the database's proxy | |
//! |---|---|
//! | `fair` | all passes again, nothing waits |
//! | `refuse`, `blackhole`, `stall`, `slow MS`, `reject SQLSTATE TEXT…` | the weather |
//! | `break before\|during\|after message\|statement\|commit N cut\|silent` | one fault |
//! | `random SEED PER_MILLE [silence]` | at random |
//! | `cut`; `failover WHERE`; `swap WHERE` | WHERE is HOST:PORT or the path of a socket |
//! | `counts`, `log` | what was |
//!
//! | to the API server's proxy | |
//! |---|---|
//! | `fair` | all passes again, held events too |
//! | `rule METHOD\|* PATH\|* FROM TIMES delay MS\|stall\|cut-before\|cut-after\|answer CODE [RETRY-AFTER]` | one rule |
//! | `hold PATH`, `release PATH`, `reorder PATH`, `drop PATH N`, `gone PATH`, `end PATH` | watches whose path has PATH in it |
//! | `random SEED PER_MILLE` | at random |
//! | `counts`, `log` | what was |

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};

use super::{Task, api, database, runtime};

/// Something that does what it is told.
pub trait Control: Send + Sync + 'static {
    /// Does it, and answers.
    fn tell(&self, words: &[&str]) -> Result<String, String>;
}

/// The socket; gone when this is dropped.
pub struct Server {
    path: PathBuf,
    _task: Task,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Whether it is there or not: nobody listens any more.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Listens on a new socket at `path`; one that nobody listens on any more gives way.
pub fn serve(path: &Path, control: Arc<dyn Control>) -> io::Result<Server> {
    if std::os::unix::net::UnixStream::connect(path).is_err() {
        // Left by somebody who was killed.
        let _ = std::fs::remove_file(path);
    }
    let _inside = runtime()?.enter();
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let task = runtime()?.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(talk(stream, Arc::clone(&control)));
        }
    });
    Ok(Server { path: path.to_owned(), _task: Task(task) })
}

async fn talk(mut stream: UnixStream, control: Arc<dyn Control>) -> io::Result<()> {
    let (reading, mut writing) = stream.split();
    let mut lines = BufReader::new(reading).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match control.tell(&words) {
            Ok(answer) => format!("ok {answer}").trim_end().to_owned() + "\n",
            Err(why) => format!("error {why}\n"),
        };
        writing.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("{word:?} is no number"))
}

impl Control for database::Proxy {
    fn tell(&self, words: &[&str]) -> Result<String, String> {
        use database::{Ending, Fault, Moment, Random, Unit, Upstream, Weather};
        let upstream = |place: &str| {
            if place.starts_with('/') { Upstream::Socket(place.into()) } else { Upstream::Address(place.to_owned()) }
        };
        match words {
            ["fair"] => self.fair(),
            ["refuse"] => self.set(Weather::Refuse),
            ["blackhole"] => self.set(Weather::BlackHole),
            ["stall"] => self.set(Weather::Stall),
            ["slow", wait] => self.set(Weather::Slow(Duration::from_millis(number(wait)?))),
            ["reject", code, text @ ..] => {
                self.set(Weather::Reject { code: (*code).to_owned(), message: text.join(" ") })
            }
            ["break", moment, unit, nth, ending] => {
                let moment = match *moment {
                    "before" => Moment::Before,
                    "during" => Moment::During,
                    "after" => Moment::After,
                    other => return Err(format!("{other:?} is not before, during or after")),
                };
                let unit = match *unit {
                    "message" => Unit::Message,
                    "statement" => Unit::Statement,
                    "commit" => Unit::Commit,
                    other => return Err(format!("{other:?} is not message, statement or commit")),
                };
                let ending = match *ending {
                    "cut" => Ending::Cut,
                    "silent" => Ending::Silent,
                    other => return Err(format!("{other:?} is not cut or silent")),
                };
                self.inject(Fault { unit, nth: number(nth)?, moment, ending })
            }
            ["random", seed, per_mille, silence @ ..] if silence.is_empty() || *silence == ["silence"] => {
                let silence = !silence.is_empty();
                self.randomly(Random { seed: number(seed)?, per_mille: number(per_mille)?, silence })
            }
            ["cut"] => self.cut(),
            ["failover", place] => self.fail_over(upstream(place)),
            ["swap", place] => self.swap(upstream(place)),
            ["counts"] => {
                let counts = self.counts();
                return Ok(json!({
                    "connections": counts.connections, "messages": counts.messages, "statements": counts.statements,
                    "commits": counts.commits, "faults": counts.faults, "waiting": self.waiting(),
                })
                .to_string());
            }
            ["log"] => return Ok(json!(self.log()).to_string()),
            _ => return Err(format!("{:?} is not understood", words.join(" "))),
        }
        Ok(String::new())
    }
}

impl Control for api::Proxy {
    fn tell(&self, words: &[&str]) -> Result<String, String> {
        use api::{Act, Random, Rule, WatchAct};
        let watches = |act: &str, count: &[&str]| -> Result<WatchAct, String> {
            Ok(match (act, count) {
                ("hold", []) => WatchAct::Hold,
                ("release", []) => WatchAct::Release,
                ("reorder", []) => WatchAct::Reorder,
                ("drop", [count]) => WatchAct::Drop(number(count)?),
                ("gone", []) => WatchAct::Gone,
                ("end", []) => WatchAct::End,
                _ => return Err(format!("{:?} is not understood", words.join(" "))),
            })
        };
        match words {
            ["fair"] => self.fair(),
            ["rule", method, path, from, times, act @ ..] => {
                let act = match act {
                    ["delay", wait] => Act::Delay(Duration::from_millis(number(wait)?)),
                    ["stall"] => Act::Stall,
                    ["cut-before"] => Act::CutBefore,
                    ["cut-after"] => Act::CutAfter,
                    ["answer", code] => Act::Answer { code: number(code)?, retry_after: None },
                    ["answer", code, after] => Act::Answer { code: number(code)?, retry_after: Some(number(after)?) },
                    _ => return Err(format!("{:?} is not understood", act.join(" "))),
                };
                let any = |word: &str| if word == "*" { String::new() } else { word.to_owned() };
                self.rule(Rule {
                    method: any(method),
                    path: any(path),
                    from: number(from)?,
                    times: number(times)?,
                    act,
                })
            }
            ["random", seed, per_mille] => {
                self.randomly(Random { seed: number(seed)?, per_mille: number(per_mille)?, ..Random::default() })
            }
            ["counts"] => {
                let counts = self.counts();
                return Ok(json!({
                    "requests": counts.requests, "writes": counts.writes, "watches": counts.watches,
                    "events": counts.events, "held": counts.held, "faults": counts.faults, "waiting": self.waiting(),
                })
                .to_string());
            }
            ["log"] => return Ok(json!(self.log()).to_string()),
            [act, path, count @ ..] => self.watches(path, watches(act, count)?),
            _ => return Err(format!("{:?} is not understood", words.join(" "))),
        }
        Ok(String::new())
    }
}

/// Says one line to a socket, as a shell does by `e2e/faults/run tell SOCKET WORDS…`.
pub fn tell(path: &Path, line: &str) -> io::Result<String> {
    use std::io::{BufRead, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(path)?;
    writeln!(stream, "{line}")?;
    let mut answer = String::new();
    io::BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer.trim_end().to_owned())
}
