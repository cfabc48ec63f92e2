//! Rollouts in a small world of services that start, fail and are changed by others, without an API server.

mod courses;
mod random;
mod selecting;
mod world;
