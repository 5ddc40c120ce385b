//! COMPRESSED and COMPRESSED2 records: one zstd stream over all of them, whose content is records that may be cut anywhere.

use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

use crate::perf::State;
use crate::perf::records::walk;
use crate::reader::{Cx, damage};

/// The number of bytes to decompress at a time. It bounds what one record can become, whatever its ratio.
const PIECE: usize = 256 << 10;
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The state of the stream.
#[derive(Default)]
pub(crate) struct Unpacker {
    decoder: Option<Decoder<'static>>,
    /// Decompressed bytes that are not a whole record yet.
    rest: Vec<u8>,
    /// Whether the stream is broken until a new frame begins.
    broken: bool,
}

impl Unpacker {
    pub(crate) fn record(&mut self, kind: u32, record: &[u8], offset: u64, state: &mut State, cx: &mut Cx) {
        let body = &record[8..];
        let data = if kind == 83 {
            // The body is u64 size, data, padding.
            let n = body.first_chunk().map_or(0, |c| u64::from_le_bytes(*c));
            body.get(8..).and_then(|d| d.get(..usize::try_from(n).ok()?)).unwrap_or(&[])
        } else {
            body
        };
        if self.broken {
            if !data.starts_with(&MAGIC) {
                return;
            }
            self.broken = false;
            self.decoder = None;
            self.rest.clear();
        }
        if self.decoder.is_none() {
            self.decoder = Decoder::new().ok();
            if let Some(d) = &mut self.decoder {
                let _ = d.set_parameter(zstd::zstd_safe::DParameter::WindowLogMax(27));
            }
        }
        let mut input = InBuffer::around(data);
        loop {
            let Some(d) = &mut self.decoder else { return };
            let have = self.rest.len();
            self.rest.resize(have + PIECE, 0);
            let mut output = OutBuffer::around(&mut self.rest[have..]);
            let result = d.run(&mut input, &mut output);
            let got = output.pos();
            self.rest.truncate(have + got);
            let failed = result.is_err();
            let used = walk(&self.rest, |kind, misc, r| state.record(kind, misc, r, offset, cx));
            if let Ok(n) = used {
                self.rest.drain(..n);
            } else {
                self.rest.clear();
                self.fail(offset, "records in the compressed data", state, cx);
                return;
            }
            if failed {
                self.fail(offset, "zstd data that continue the stream", state, cx);
                return;
            }
            // Everything was decompressed, and the output did not end because the piece was full.
            if input.pos() >= data.len() && got < PIECE {
                return;
            }
        }
    }

    fn fail(&mut self, offset: u64, expected: &str, state: &mut State, cx: &mut Cx) {
        self.broken = true;
        let text = "the events up to the next start of a compressed stream are missing";
        let path = state.path.clone();
        if let Some(body) = cx.damaged(damage(&path, offset, expected, text, true)) {
            state.note(body);
        }
    }
}
