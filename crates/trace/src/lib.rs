//! KVM MMU trace files of every format to one typed stream of events.
//!
//! The main types are [`Trace`] (a whole recording), [`Event`] and [`Follower`] (a recording that still grows). It reads perf.data (file,
//! pipe, directory), trace.dat (versions 6 and 7), pages of `trace_pipe_raw` with a folder of formats, and the text of tracefs, `trace-cmd
//! report` and `perf script`, each also compressed with gzip, zstd or xz. The format is recognised by content. Field offsets come from the
//! `format` text in the file, never from a version number. This crate never interprets the bits of an SPTE: the replay does that, with
//! `mmuscope-spte`. The module [`undecoded`] is public for tests and benchmarks alone, whose writers (`crates/testing`) need the bytes of records.
//!
//! ```
//! let text = "load-1 [000] d..1. 4.296383: kvm_entry: vcpu 0, rip 0x6000\n";
//! let trace = mmuscope_trace::Trace::from_text(text)?;
//! assert_eq!(trace.events.len(), 1);
//! # Ok::<(), mmuscope_trace::Error>(())
//! ```

mod assemble;
mod blob;
mod dat;
mod describe;
mod dir;
mod error;
pub mod event;
mod exits;
mod fields;
mod follow;
pub mod format;
#[doc(hidden)]
pub mod fuzz;
pub mod info;
mod input;
mod load;
mod merge;
mod pack;
mod packing;
pub mod paste;
mod perf;
mod probed;
mod raw;
mod reader;
mod records;
mod ring;
mod role;
mod schema;
mod sniff;
mod store;
mod strings;
mod text;
mod texts;
pub mod undecoded;

pub use mmuscope_snapshot as snapshot;

pub use error::Error;
pub use event::*;
pub use exits::{is_halt, name as exit_name, vmm_exit_by_name, vmm_exit_name};
pub use follow::{Follower, POLL_EVENTS, Stage};
pub use info::*;
pub use load::{Sink, Trace, stream};
pub use perf::probes::ARGUMENT_REGISTERS;
pub use reader::{Progress, ReadOptions};
pub use store::{BLOCK, Cursor, EventStore, Iter};
pub use strings::Strings;

use std::path::Path;

/// Makes the reader of a binary format.
fn binary_reader(
    kind: sniff::Kind,
    data: input::Data,
    path: &Path,
    cx: &mut reader::Cx,
) -> Result<(Box<dyn reader::Reader>, FormatKind), Error> {
    match (kind, data) {
        (sniff::Kind::Dat6, input::Data::Source(s)) => {
            Ok((dat::DatReader::open(&s, path, cx)?, FormatKind::TraceDatV6))
        }
        (sniff::Kind::Dat7, input::Data::Source(s)) => {
            Ok((dat::DatReader::open(&s, path, cx)?, FormatKind::TraceDatV7))
        }
        (sniff::Kind::PerfFile, input::Data::Source(s)) => {
            Ok((Box::new(perf::open_file(&s, path, FormatKind::PerfFile, cx)?), FormatKind::PerfFile))
        }
        (sniff::Kind::PerfPipe, data) => {
            Ok((Box::new(perf::PerfReader::pipe(data.into_stream(), path, cx)?), FormatKind::PerfPipe))
        }
        _ => Err(Error::Unsupported {
            path: path.to_path_buf(),
            what: "a trace that can only be read from a file".to_owned(),
            next: "save it and give the file".to_owned(),
        }),
    }
}
