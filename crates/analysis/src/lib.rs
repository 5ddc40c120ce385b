//! Questions over a replay: tables, filters, summaries, and the visual language of the pictures.
//!
//! The command line, the report and the viewer call this crate. Its main type is [`Table`](table::Table), which names its columns: their names and
//! types are a contract with scripts. [`table::Rows`] builds chunks of a table, one at a time, so that input larger than memory can pass through;
//! `mmuscope-tables` writes them.
//!
//! This crate never reads or writes a file and never decides what an event means: readers are in `mmuscope-trace`, conclusions in
//! `mmuscope-replay`. It is light to build: it links no file format of tables.

pub mod between;
pub mod diff;
pub mod events;
pub mod filter;
pub mod findings;
pub mod hot;
pub mod huge;
pub mod latency;
pub mod life;
pub mod part;
pub mod pasted;
pub mod places;
pub mod session;
pub mod slots;
pub mod snapshots;
pub mod stat;
pub mod summary;
pub mod table;
pub mod time;
pub mod timeline;
pub mod visual;
pub mod words;

pub use filter::{Filter, FilterError};
