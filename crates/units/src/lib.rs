//! How numbers, times, sizes and guest frames are written and read, on every face: command line, report, viewer, recorder.
//!
//! This crate has functions and hardly any types: those of `write` format a number for people, those of `read` parse what people type
//! ([`Frames`], [`NotATime`]); [`like()`] matches names with the patterns that people type, and [`ranges`] has what is done with
//! ranges of frames, addresses and the like. Every other crate that prints or parses a
//! number calls them. It never does arithmetic on what it formats, and it knows nothing of traces.
//!
//! | value | written | read |
//! | --- | --- | --- |
//! | count | `1,234,567` | |
//! | length of time | three significant digits and the unit that fits: `820 ns`, `3.41 µs`, `12 ms`, `8.29 s`, `2 min 5 s` | `1.5s`, `200ms`, `3us`, `3µs`, `50ns`, `5m`, `2h` |
//! | moment | seconds since the first event. In a table all nine decimals, `0.201985000`; in prose as many as distinguish it from its neighbours, `1.103254 s` | as a length of time |
//! | amount of memory | binary units, three significant digits: `4 KiB`, `17.5 MiB`, `1.5 GiB` | `65536`, `64k`, `8M`, `2GiB`: powers of 1024 |
//! | what an entry of a level maps | `4K`, `2M`, `1G` ([`level_size`]): the kernel's names of page sizes, not amounts | |
//! | guest frame, address, SPTE | `0x7c00` | hex with or without `0x`; decimal with `0d` |
//! | share | `3.4 %`, never rounded to all or to nothing | |
//!
//! **A time without a unit is in seconds**, as traces, `perf script --time` and mmuscope's own tables print moments: `--at 1.5` is `--at 1.5s`,
//! and so in the viewer and in `record --duration 10`. (In `--where`, a number without a unit is in the unit of the column: nanoseconds, bytes.)
//!
//! **A guest frame without a prefix is in hex**, as traces print frames: `2001` is `0x2001`, `0d8193` is the same frame in decimal.
//! The length behind a `+` (`100+16`) is a count, and decimal.
//!
//! Input is read exactly: times to the nanosecond, without floating point.

mod like;
pub mod ranges;
mod read;
mod write;

pub use like::like;
pub use read::{Frames, NotATime, frame, frames, number, size, time};
pub use write::{
    bytes, clock, count, counted, duration, gfn, gfn_range, gpa, gpa_range, level_size, moment, moments,
    percent, rate, seconds, shell_word, short_count, spte, time_with_step,
};
