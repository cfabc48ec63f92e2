//! Tests of the pure part of a pass, on objects as the API server would return them.

mod build;
mod health;
mod lives;
mod objects;
mod plan;
mod status;
mod validate;
mod view;
