//! Questions over a replay: tables, filters, summaries, and the visual language of the pictures.
//!
//! The one crate that knows polars. A [`Table`](table::Table) names its columns, whose names and types are a contract with scripts;
//! [`table::Rows`] builds chunks of it, [`table::TableWriter`] writes them as text, CSV, JSON, Parquet or Arrow IPC, a chunk at a time, so
//! that input larger than memory can pass through.

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
