//! Tests of the accounting, of the decision, and of the desk over a cluster small enough for a test.

mod admit;
mod amounts;
mod chains;
mod interleaved;
mod objects;
