//! Ways to the database and to the API server that break on command, and what tests tell of what they broke.
//!
//! Owns: the loopback in between, the seeds, and the lines that `e2e/faults/run` counts. Must never: decide whether what
//! came of a fault is right (tests and oracles do), nor change what it passes on but as it was told.
//!
//! The proxies run on a runtime of their own, so that tests need none; every method answers at once, in async code too.

pub mod api;
pub mod clock;
pub mod control;
pub mod database;
pub mod disk;
pub mod etcd;
pub mod matrix;
pub mod operator;
pub mod report;
pub mod stop_and_go;

use std::{
    collections::VecDeque,
    io,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::{runtime, task::JoinHandle};

static RUNTIME: LazyLock<io::Result<runtime::Runtime>> =
    LazyLock::new(|| runtime::Builder::new_multi_thread().worker_threads(2).thread_name("faults").enable_all().build());

fn runtime() -> io::Result<&'static runtime::Runtime> {
    RUNTIME.as_ref().map_err(|error| io::Error::other(error.to_string()))
}

/// A panic elsewhere is that test's failure, not another one here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A task that ends with its owner.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Randomness that is a function of a seed and of a place: the same fault at the same place, however the rest of the run
/// interleaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dice(u64);

impl Dice {
    /// The dice of one place.
    pub fn at(seed: u64, place: u64) -> Self {
        let mut dice = Self(seed ^ place.wrapping_mul(0xd6e8_feb8_6659_fd93));
        dice.draw();
        dice
    }

    /// The next number (splitmix64).
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }

    /// One of several, which are not none.
    pub fn one_of<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        let place = self.below(u64::try_from(choices.len()).unwrap_or(u64::MAX));
        choices.get(usize::try_from(place).unwrap_or(0))
    }
}

/// Faults that came true, in order, one line each. The oldest go once there are very many.
#[derive(Debug, Default)]
struct Log {
    lines: VecDeque<String>,
    count: u64,
}

impl Log {
    fn add(&mut self, line: String) {
        if self.lines.len() == 10_000 {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
        self.count += 1;
    }
}

/// Whether `condition` became true in time. It is looked at less and less often: looking may be a process of its own.
pub fn wait_until(within: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !condition() {
        if began.elapsed() >= within {
            return false;
        }
        thread::sleep((began.elapsed() / 10).clamp(Duration::from_millis(2), Duration::from_millis(200)));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::Dice;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_another_one_others() {
        let many = |seed| (0..100).map(|place| Dice::at(seed, place).below(1_000)).collect::<Vec<_>>();
        assert_eq!(many(1), many(1));
        assert_ne!(many(1), many(2));
        let mean = many(7).iter().sum::<u64>() / 100;
        assert!((350..650).contains(&mean), "{mean}");
    }
}
