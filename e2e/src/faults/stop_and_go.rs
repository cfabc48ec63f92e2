//! Something that works only now and then, until this is dropped.
//!
//! Owns: the pace. Must never: end with it standing still.

use std::{
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::kubectl::Error;

/// What brings it to a standstill, and lets it go on.
pub trait Brakes: Send + 'static {
    /// It stands still from now on.
    fn stop(&self) -> Result<(), Error>;
    /// It works from now on.
    fn go(&self) -> Result<(), Error>;
}

/// See the module's comment.
#[derive(Debug)]
pub struct StopAndGo {
    running: Option<(Sender<()>, JoinHandle<()>)>,
}

impl StopAndGo {
    /// It stands still at once, for `rest`; then it works for `work`, and so on.
    pub fn begin(brakes: impl Brakes, work: Duration, rest: Duration) -> Result<Self, Error> {
        brakes.stop()?;
        let (sender, ended) = mpsc::channel();
        let told = |done: Result<(), Error>| {
            done.unwrap_or_else(|error| eprintln!("it is not as slow as it should be: {error}"));
        };
        let run = move || {
            let goes_on = |wait| matches!(ended.recv_timeout(wait), Err(RecvTimeoutError::Timeout));
            loop {
                let again = goes_on(rest);
                told(brakes.go());
                if !again || !goes_on(work) {
                    return;
                }
                told(brakes.stop());
            }
        };
        Ok(Self { running: Some((sender, thread::spawn(run))) })
    }
}

impl Drop for StopAndGo {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.running.take() {
            drop(sender);
            // A panic in it was printed there.
            let _ = thread.join();
        }
    }
}
