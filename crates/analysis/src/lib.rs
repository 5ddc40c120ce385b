//! Questions over a replay: tables, filters, summaries, and the visual language of the pictures.
//!
//! The command line, the report and the viewer call this crate; it is the only one that links polars. Its main type is
//! [`Table`](table::Table), which names its columns: their names and types are a contract with scripts. [`table::Rows`] builds chunks of a
//! table, and [`table::TableWriter`] writes them as text, CSV, JSON, Parquet or Arrow IPC, one chunk at a time, so that input larger than
//! memory can pass through.
//!
//! This crate never reads a file and never decides what an event means: readers are in `mmuscope-trace`, conclusions in `mmuscope-replay`.

mod error;
pub mod events;
pub mod filter;
pub mod standout;
pub mod summary;
pub mod table;
pub mod time;
pub mod timeline;
pub mod visual;
pub mod words;

pub use error::Error;
pub use filter::{Filter, FilterError};
