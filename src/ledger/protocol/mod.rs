//! The ledger's protocol: who may write which record where, and in which order.
//!
//! This room owns the decisions and nothing else. There is no client here, no clock, no disk and
//! no database: [`rules`] takes what a writer has seen and answers with the one step it may take.
//! The code that talks to PostgreSQL, to the spool and to the API server does what the rules say,
//! and the model beside them (test-only) calls the same functions under every interleaving of two
//! leaders and every fault that the ledger promises to survive. What is checked is what runs.
//!
//! The rules are numbered 1 to 7 as in the ledger's documentation.

pub mod rules;

#[cfg(test)]
mod model;

pub use rules::{
    AfterShow, Certain, ConflictWith, Database, DatabaseHead, Deletion, Descent, Gap, GapStep, Head, Line, Link, Mark,
    MarkedHead, MarkedStep, ObjectSeen, PendingStep, Reading, Relation, Release, ShowAnswer, ShowTests, Showing,
    StatusRead, Step, Tombstone, TombstoneStep, View, after_append, after_show, marked_head_repair, may_clear_pending,
    may_name_lost, may_release_finalizer, may_remove_tombstone, next_step, on_conflict, relate, show_tests,
};
