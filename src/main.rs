//! The command `berth`.
fn main() {}
