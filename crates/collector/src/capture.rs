//! Writes a capture, which is a perf.data in its streaming (pipe) form: whatever ends the recorder, everything written before is readable.
//! The main type is [`Capture`]; the thread in `feed` owns it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use zstd::bulk::Compressor;

use crate::Error;
use crate::preamble::{COMPRESSED, FINISHED_ROUND, PIECE, Preamble, facts, record};

/// Makes a capture file. An existing file is renamed to `NAME.old`, as perf does.
pub(crate) fn create(path: &Path) -> Result<File, Error> {
    let fail = |source| Error::Write { path: path.to_owned(), source };
    if let Ok(m) = std::fs::symlink_metadata(path)
        && m.is_file()
        && m.len() > 0
    {
        let mut old = path.as_os_str().to_owned();
        old.push(".old");
        std::fs::rename(path, &old).map_err(fail)?;
    }
    // A capture shows what a guest does, so no other user may read it.
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(fail)
}

/// The most bytes that one COMPRESSED record can hold.
const ROOM: usize = u16::MAX as usize - 8;
/// The number of bytes that fit into one record even where nothing can be compressed.
const SMALL: usize = 60 << 10;

/// A capture that is being written. Each piece of the record stream becomes one zstd frame in one COMPRESSED record, so that damage to one
/// frame affects no other. perf refuses a record that holds less than a block of a frame.
pub(crate) struct Capture<W> {
    to: W,
    zstd: Option<Compressor<'static>>,
    frame: Vec<u8>,
    out: Vec<u8>,
    /// The number of bytes of records before compression.
    pub raw: u64,
    /// The number of bytes written.
    pub written: u64,
}

fn compress(z: &mut Compressor<'_>, raw: &[u8], frame: &mut Vec<u8>) -> io::Result<()> {
    frame.clear();
    frame.reserve(zstd::zstd_safe::compress_bound(raw.len()));
    z.compress_to_buffer(raw, frame).map(drop)
}

fn wrap(frame: &[u8], out: &mut Vec<u8>) {
    // COMPRESSED is the one record whose size is not a multiple of 8 (perf writes it so, too): padding would be read as data.
    out.extend(COMPRESSED.to_le_bytes());
    out.extend(0u16.to_le_bytes());
    out.extend(((frame.len() + 8) as u16).to_le_bytes());
    out.extend_from_slice(frame);
}

impl<W: Write> Capture<W> {
    /// Starts a capture and writes the preamble.
    pub(crate) fn start(to: W, preamble: &Preamble) -> io::Result<Self> {
        let mut c = Self::new(to, preamble)?;
        c.flush()?;
        Ok(c)
    }

    /// Starts a capture without writing: the preamble is written with the next [`flush`](Self::flush).
    pub(crate) fn new(to: W, preamble: &Preamble) -> io::Result<Self> {
        let zstd = if preamble.compressed { Some(Compressor::new(preamble.level)?) } else { None };
        Ok(Self { to, zstd, frame: Vec::new(), out: preamble.bytes(), raw: 0, written: 0 })
    }

    /// Adds a part of the record stream, which may be cut anywhere.
    pub(crate) fn data(&mut self, piece: &[u8]) -> io::Result<()> {
        self.raw += piece.len() as u64;
        let Some(z) = &mut self.zstd else {
            self.out.extend_from_slice(piece);
            return self.flush();
        };
        for part in piece.chunks(PIECE) {
            compress(z, part, &mut self.frame)?;
            if self.frame.len() <= ROOM {
                wrap(&self.frame, &mut self.out);
                continue;
            }
            for small in part.chunks(SMALL) {
                compress(z, small, &mut self.frame)?;
                wrap(&self.frame, &mut self.out);
            }
        }
        self.flush()
    }

    /// Adds whole records outside of the compressed stream, which must be at the end of a record.
    pub(crate) fn plain(&mut self, records: &[u8]) {
        self.out.extend_from_slice(records);
    }

    /// Ends a pass over the rings: a reader may now put in order everything that came before the previous pass.
    pub(crate) fn end_round(&mut self) -> io::Result<()> {
        record(&mut self.out, FINISHED_ROUND, 0, &[]);
        self.flush()
    }

    /// Writes what is not written yet.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.to.write_all(&self.out)?;
        self.written += self.out.len() as u64;
        self.out.clear();
        Ok(())
    }

    /// Ends the capture with the facts in `end_facts`, which are known only now. It returns the number of bytes written.
    pub(crate) fn finish(mut self, end_facts: &[(String, String)]) -> io::Result<u64> {
        facts(&mut self.out, end_facts);
        self.end_round()?;
        self.to.flush()?;
        Ok(self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preamble::DECOMPRESSED;
    use crate::ring::records;
    use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

    fn preamble(compressed: bool) -> Preamble {
        Preamble { compressed, level: -1, ..Preamble::default() }
    }

    /// Bytes without any pattern (xorshift).
    fn noise(n: usize) -> Vec<u8> {
        let mut x = 0x9e37_79b9_7f4a_7c15u64;
        std::iter::repeat_with(|| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        })
        .take(n)
        .collect()
    }

    /// Decompresses the COMPRESSED records as perf does: one decompressor for all of them, and one call for each record into a buffer of the size
    /// that the head of the file states.
    fn decompressed(mut file: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut z = Decoder::new().unwrap();
        let mut buf = vec![0; DECOMPRESSED as usize];
        while file.len() >= 8 {
            let kind = u32::from_le_bytes(file[..4].try_into().unwrap());
            let size = usize::from(u16::from_le_bytes(file[6..8].try_into().unwrap()));
            if kind == COMPRESSED {
                let mut input = InBuffer::around(&file[8..size]);
                let mut output = OutBuffer::around(buf.as_mut_slice());
                z.run(&mut input, &mut output).unwrap();
                assert_eq!(input.pos(), size - 8, "one call takes the whole record");
                assert!(output.pos() > 0, "perf takes no record that decompresses to nothing");
                out.extend_from_slice(output.as_slice());
            } else {
                assert_eq!(kind, FINISHED_ROUND);
            }
            file = &file[size..];
        }
        assert!(file.is_empty());
        out
    }

    #[test]
    fn what_was_put_in_comes_out_compressible_or_not() {
        let mut same = noise(100);
        same.resize(PIECE, 7);
        let mut file = Vec::new();
        let mut c = Capture::start(&mut file, &preamble(true)).unwrap();
        let head = c.written as usize;
        let pieces = [same, noise(PIECE), noise(1), Vec::new(), noise(70_000), vec![1; 3 * PIECE + 5]];
        for p in &pieces {
            c.data(p).unwrap();
            c.end_round().unwrap();
        }
        assert_eq!(c.finish(&[]).unwrap() as usize, file.len());
        assert_eq!(decompressed(&file[head..]), pieces.concat());
    }

    #[test]
    fn an_uncompressed_capture_holds_the_records_as_they_are() {
        let mut file = Vec::new();
        let mut c = Capture::start(&mut file, &preamble(false)).unwrap();
        let head = c.written as usize;
        let mut r = Vec::new();
        for n in 0..10u8 {
            record(&mut r, 9, 0, &[n; 24]);
        }
        c.data(&r).unwrap();
        c.finish(&[]).unwrap();
        assert_eq!(&file[head..head + r.len()], &r[..]);
        assert_eq!(records(&file[head..]).count(), 11);
    }

    #[test]
    fn a_full_disk_is_an_error_not_a_panic() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, b: &[u8]) -> io::Result<usize> {
                let n = b.len().min(self.0);
                self.0 -= n;
                if n == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(n) }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut c = Capture::start(Full(5000), &preamble(true)).unwrap();
        let e = (0..100).find_map(|_| c.data(&noise(1000)).err()).unwrap();
        assert_eq!(e.kind(), io::ErrorKind::StorageFull);
    }
}
