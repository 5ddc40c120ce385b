//! Tables written as text, Markdown, CSV, JSON, Parquet and Arrow IPC.
//!
//! [`TableWriter`] is what the command line calls, with [`Chunk`](mmuscope_analysis::table::Chunk)s that `mmuscope-analysis` made. The one crate that
//! knows polars (its Arrow and Parquet crates); it never makes or leaves out a row, and does not know what a column means.

mod binary;
mod error;
mod markdown;
mod text;
mod write;

pub use error::Error;
pub use write::{Format, TableWriter, WriteOptions};
