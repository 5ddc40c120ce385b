//! [`RawTrace`]: the records of a trace.dat, not decoded. It is public because the writers that tests and benchmarks use (`crates/testing`) make
//! traces of other formats out of real records, whose bytes nothing else gives. No command of mmuscope uses it.

use std::path::Path;

use crate::dat;
use crate::error::Error;
use crate::format::Format;
use crate::input::{self, Data};
use crate::reader::{Cx, ReadOptions};

/// The records of a trace as the kernel wrote them.
#[derive(Clone, Debug, Default)]
pub struct RawTrace {
    /// The formats of its tracepoints.
    pub formats: Vec<Format>,
    /// The names of tasks, by thread id.
    pub comms: Vec<(u32, String)>,
    /// The records: each CPU's in order, one CPU after the other.
    pub records: Vec<RawRecord>,
}

/// One record.
#[derive(Clone, Debug, Default)]
pub struct RawRecord {
    /// The CPU that recorded it.
    pub cpu: u16,
    /// Its time, in nanoseconds on the trace's clock.
    pub ts: u64,
    /// Its bytes, beginning with the common fields.
    pub data: Vec<u8>,
}

impl RawTrace {
    /// Reads a trace.dat (which may be compressed as a whole).
    pub fn read_dat(path: &Path) -> Result<Self, Error> {
        let mut cx = Cx::new(&ReadOptions::default());
        let input = input::open(path)?;
        let Data::Source(source) = input.data else {
            return Err(Error::Unsupported {
                path: path.to_path_buf(),
                what: "raw records can only be taken from a trace.dat".to_owned(),
                next: "give a trace.dat".to_owned(),
            });
        };
        let mut reader = dat::DatReader::open_raw(&source, path, &mut cx)?;
        let mut raw = Self { formats: reader.formats(), comms: reader.comms(), records: Vec::new() };
        reader
            .each_raw(&mut cx, |cpu, ts, data| raw.records.push(RawRecord { cpu, ts, data: data.to_vec() }));
        Ok(raw)
    }

    /// The number of CPUs.
    pub fn cpus(&self) -> u16 {
        self.records.iter().map(|r| r.cpu + 1).max().unwrap_or(0)
    }

    /// The first and the last time.
    pub fn range(&self) -> (u64, u64) {
        let first = self.records.iter().map(|r| r.ts).min().unwrap_or(0);
        (first, self.records.iter().map(|r| r.ts).max().unwrap_or(0))
    }
}
