//! The head of a perf.data in file mode: the attrs, the place of the data, and the features after them.

use std::path::Path;

use crate::blob::Blob;
use crate::error::Error;
use crate::info::FormatKind;
use crate::input::Source;
use crate::perf::attr::Attr;
use crate::perf::{PerfReader, features};
use crate::reader::{Cx, damage};

/// The largest feature that is read, in bytes (TRACING_DATA with all events of a kernel and its symbols).
const MAX_FEATURE: u64 = 256 << 20;

fn bad(path: &Path, offset: u64, expected: &str) -> Error {
    Error::Damaged { path: path.to_path_buf(), offset, expected: expected.to_owned() }
}

/// Opens a perf.data in file mode.
pub(crate) fn open(source: &Source, path: &Path, kind: FormatKind, cx: &mut Cx) -> Result<PerfReader, Error> {
    let head =
        source.bytes(0, 104).ok_or_else(|| bad(path, source.len(), "the head of a perf.data, 104 bytes"))?;
    let mut b = Blob { data: &head, at: 8 };
    let mut word = || b.u64().unwrap_or(0);
    let (_size, attr_size) = (word(), word());
    let (attrs_at, attrs_len, data_at, mut data_len) = (word(), word(), word(), word());
    let (_, _) = (word(), word());
    let flags = [word(), word(), word(), word()];
    if !(64 + 16..=4096).contains(&attr_size) {
        return Err(bad(path, 16, "the size of an attribute"));
    }
    if data_at < 104 || data_at > source.len() {
        return Err(bad(path, 40, "the place of the data, within the file"));
    }
    // A recorder that was killed leaves the size 0. The data then extend to the end of the file, and no features follow.
    let finished = data_len > 0;
    let data_end = data_at.saturating_add(data_len);
    if !finished {
        data_len = source.len() - data_at;
    }
    let input = Box::new(source.section(data_at, data_at.saturating_add(data_len)));
    let mut r = PerfReader::records(input, path, kind, data_at);
    let attrs = source
        .bytes(attrs_at, attrs_len)
        .ok_or_else(|| bad(path, attrs_at, "the attributes of the events"))?;
    for entry in attrs.chunks_exact(attr_size as usize) {
        let Some(a) = Attr::parse(entry) else { continue };
        let mut b = Blob { data: entry, at: attr_size as usize - 16 };
        let ids = match (b.u64(), b.u64()) {
            (Some(at), Some(len)) if len <= 64 << 20 => source.bytes(at, len).unwrap_or_default(),
            _ => Vec::new(),
        };
        r.state.add_attr(a, ids.as_chunks::<8>().0.iter().map(|c| u64::from_le_bytes(*c)));
    }
    if !finished {
        let text = "the recording was not finished: facts about the host are missing";
        let _ = cx.damaged(damage(path, 48, "the size of the data", text, true));
        return Ok(r);
    }
    let mut at = data_end;
    for bit in (0..256u64).filter(|bit| flags[(bit / 64) as usize] >> (bit % 64) & 1 != 0) {
        let section = source.bytes(at, 16).and_then(|d| {
            let mut b = Blob::new(&d);
            Some((b.u64()?, b.u64()?))
        });
        let data = section.and_then(|(o, n)| if n <= MAX_FEATURE { source.bytes(o, n) } else { None });
        match data {
            Some(d) if bit == 1 => r.state.tracing_data(&d, section.map_or(0, |s| s.0), cx),
            Some(d) => features::feature(bit, &d, &mut r.state, cx),
            None => {
                let text = format!(
                    "feature {bit} is missing{}",
                    if bit == 1 { ": it holds the formats of the events" } else { "" }
                );
                let _ = cx.damaged(damage(path, at, "a feature section within the file", text, true));
            }
        }
        // The size of the data may be any number; saturating keeps the table at or after the end of the file.
        at = at.saturating_add(16);
    }
    Ok(r)
}
