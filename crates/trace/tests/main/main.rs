//! Tests over real traces (`samples/`) and over files made from them. They are one program with a module for each subject.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its sample has failed")]

mod agree;
#[path = "../../../cli/tests/it/ends.rs"]
mod ends;
mod follow;
mod hostile;
mod last_line;
mod pasted;
mod quirks;
mod snapshots;
mod support;
mod tools;
