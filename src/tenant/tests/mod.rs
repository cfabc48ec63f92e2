//! Tests of the pure part of a pass, on objects as the API server would return them.

mod build;
mod disks;
mod faults;
mod health;
mod interrupted;
mod left_alone;
mod lives;
mod objects;
mod others;
mod outages;
mod paused;
mod plan;
mod quota;
mod retries;
mod schedules;
mod server;
mod status;
mod validate;
mod view;
