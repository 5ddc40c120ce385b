//! The pages of one CPU in order, from plain ranges of the file or from compressed chunks. The main type is [`Pages`].

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::input::Source;

/// The number of bytes of pages that are read at once, for one CPU and for all CPUs together.
const WINDOW: usize = 256 << 10;
const ALL_WINDOWS: usize = 64 << 20;

/// The number of bytes that all CPUs together may hold decompressed; it is a small multiple of the file's size.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<AtomicU64>);

impl Budget {
    pub(crate) fn of(source: &Source) -> Self {
        Self(Arc::new(AtomicU64::new((64 << 20) + source.len().saturating_mul(32))))
    }

    fn take(&self, n: u64) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(n)).is_ok()
    }

    fn give(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
}

/// The reason why there are no more pages.
pub(crate) struct BadPages {
    pub(crate) at: u64,
    pub(crate) expected: &'static str,
    pub(crate) message: String,
}

/// The compressors of v7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compressor {
    Zstd,
    Zlib,
}

/// The pages of one CPU.
pub(crate) struct Pages {
    source: Source,
    page_size: usize,
    /// The offset of the next byte in the file, and the end of this CPU's part.
    at: u64,
    end: u64,
    window: Vec<u8>,
    /// The current page is from here to `window_at`.
    page_from: usize,
    window_at: usize,
    /// The offset in the file of the window's first byte.
    window_from: u64,
    chunks: Option<(Compressor, u32)>,
    budget: Budget,
    held: u64,
    progress: u64,
    cut: bool,
    /// The number of bytes to read at once.
    most: usize,
}

impl Pages {
    pub(crate) fn new(
        source: Source,
        page_size: usize,
        at: u64,
        size: u64,
        compressor: Option<Compressor>,
        budget: Budget,
    ) -> Self {
        let end = at.saturating_add(size);
        let cut = end > source.len();
        let mut p = Self {
            end: end.min(source.len()),
            source,
            page_size,
            at,
            window: Vec::new(),
            page_from: 0,
            window_at: 0,
            window_from: 0,
            chunks: None,
            budget,
            held: 0,
            progress: 0,
            cut,
            most: WINDOW,
        };
        if let Some(c) = compressor {
            let mut n = [0; 4];
            let got = if size >= 4 { p.source.read_at(at, &mut n).unwrap_or(0) } else { 0 };
            p.chunks = Some((c, if got == 4 { u32::from_le_bytes(n) } else { 0 }));
            p.at += 4;
        }
        p
    }

    /// Shares the window size among so many CPUs that are read at the same time.
    pub(crate) fn share(&mut self, cpus: usize) {
        self.most = WINDOW.min(ALL_WINDOWS / cpus.max(1));
    }

    /// The compressor of the pages, if they are compressed.
    pub(crate) fn compressor(&self) -> Option<Compressor> {
        self.chunks.map(|c| c.0)
    }

    /// The number of bytes of the file that were used since the last call.
    pub(crate) fn take_progress(&mut self) -> u64 {
        std::mem::take(&mut self.progress)
    }

    /// The page to which [`next`](Self::next) went.
    #[inline]
    pub(crate) fn page(&self) -> &[u8] {
        self.window.get(self.page_from..self.window_at).unwrap_or(&[])
    }

    /// Goes to the next page and returns its offset in the file, or that of its chunk if it is compressed.
    pub(crate) fn next(&mut self) -> Result<Option<u64>, BadPages> {
        if self.window_at >= self.window.len() && !self.refill()? {
            self.page_from = self.window_at;
            if self.cut {
                self.cut = false;
                let at = self.source.len();
                return Err(BadPages {
                    at,
                    expected: "more ring pages",
                    message: "the file ends before the pages that it announces".to_owned(),
                });
            }
            return Ok(None);
        }
        let from = self.window_at;
        self.page_from = from;
        self.window_at = (from + self.page_size).min(self.window.len());
        Ok(Some(if self.chunks.is_some() { self.window_from } else { self.window_from + from as u64 }))
    }

    fn refill(&mut self) -> Result<bool, BadPages> {
        self.page_from = 0;
        self.window_at = 0;
        let Some((compressor, left)) = self.chunks else {
            self.window.clear();
            let n = (self.end.saturating_sub(self.at))
                .min((self.most / self.page_size).max(1) as u64 * self.page_size as u64)
                as usize;
            if n == 0 {
                return Ok(false);
            }
            self.window.resize(n, 0);
            let got = self.source.read_at(self.at, &mut self.window).unwrap_or(0);
            self.window.truncate(got);
            self.window_from = self.at;
            self.at += got as u64;
            self.progress += got as u64;
            return Ok(got > 0);
        };
        self.window = Vec::new();
        self.budget.give(std::mem::take(&mut self.held));
        if left == 0 {
            return Ok(false);
        }
        self.chunks = Some((compressor, left - 1));
        let at = self.at;
        let bad = |expected, message: &str| Err(BadPages { at, expected, message: message.to_owned() });
        let mut sizes = [0; 8];
        if self.source.read_at(at, &mut sizes).unwrap_or(0) < 8 {
            return bad("a chunk of compressed ring pages", "the file ends here");
        }
        let csize = u64::from(u32::from_le_bytes([sizes[0], sizes[1], sizes[2], sizes[3]]));
        let usize_ = u64::from(u32::from_le_bytes([sizes[4], sizes[5], sizes[6], sizes[7]]));
        let Some(data) = self.source.bytes(at + 8, csize) else {
            return bad("a chunk of compressed ring pages", "the chunk is longer than the file");
        };
        if usize_ > (256 << 10) + csize.saturating_mul(256) || !self.budget.take(usize_) {
            return bad(
                "a sensible size of a decompressed chunk",
                "the chunk claims to decompress to far more than the file",
            );
        }
        self.held = usize_;
        let Some(out) = decompress(compressor, &data, usize_ as usize) else {
            return bad("a chunk of compressed ring pages", "it does not decompress");
        };
        self.window = out;
        self.window_from = at;
        self.at = at + 8 + csize;
        self.progress += 8 + csize;
        Ok(!self.window.is_empty())
    }
}

/// Decompresses `data` to at most `size` bytes.
pub(crate) fn decompress(c: Compressor, data: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match c {
        // The zstd frames do not state their size; the file does.
        Compressor::Zstd => {
            let mut d = zstd::stream::read::Decoder::new(data).ok()?;
            d.window_log_max(27).ok()?;
            out.reserve_exact(size);
            d.take(size as u64).read_to_end(&mut out).ok()?;
        }
        Compressor::Zlib => {
            out.reserve_exact(size);
            flate2::read::ZlibDecoder::new(data).take(size as u64).read_to_end(&mut out).ok()?;
        }
    }
    (out.len() == size).then_some(out)
}
