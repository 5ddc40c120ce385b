//! Questions over a replay: tables, filters, summaries, and the visual language of the pictures.
//!
//! A [`Table`](table::Table) names its columns, whose names and types are a contract with scripts; [`table::Rows`] builds chunks of it, a chunk at a
//! time, so that input larger than memory can pass through, and `mmuscope-tables` writes them. What the report and the viewer need of all this is
//! here, and it is light to build: no file format, no polars.

pub mod events;
pub mod filter;
pub mod standout;
pub mod summary;
pub mod table;
pub mod time;
pub mod timeline;
pub mod visual;
pub mod words;

pub use filter::{Filter, FilterError};
