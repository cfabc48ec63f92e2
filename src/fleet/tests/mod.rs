//! Rollouts in a small world of services that start, fail and are changed by others: planned, and in passes against an API
//! server that fits in a test.

mod chains;
mod courses;
mod passes;
mod random;
mod selecting;
mod world;
