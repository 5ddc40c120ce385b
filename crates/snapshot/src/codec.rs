//! Pieces to bytes and back. The bytes are records that each decompress alone, so that a capture cut anywhere still holds all whole records.

use serde::{Deserializer, Serializer};

use crate::Piece;

/// The first bytes of a record that carries pieces of a snapshot.
pub const MAGIC: &[u8; 8] = b"MMUSNAP1";
/// The most bytes that the body of a record may have, the magic included.
pub const MOST: usize = 60_000;
/// The most bytes that a record decompresses to.
const RAW: usize = 256 << 10;
/// The number of bytes of pieces after which a record is closed: one more piece, of at most 11 KiB a list, still fits.
const FULL: usize = 48 << 10;
const LEVEL: i32 = 1;

/// Why a record of a snapshot cannot be read. What other records hold is not affected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damaged {
    /// It does not begin with [`MAGIC`].
    Magic,
    /// It does not decompress to at most 256 KiB.
    Compression,
    /// What it decompresses to are not pieces.
    Pieces,
}

/// Makes records out of pieces.
#[derive(Debug, Default)]
pub struct Packer {
    raw: Vec<u8>,
    records: Vec<Vec<u8>>,
}

impl Packer {
    /// Adds a piece.
    pub fn push(&mut self, piece: &Piece) {
        let Ok(bytes) = postcard::to_allocvec(piece) else { return };
        if self.raw.len() + bytes.len() > FULL {
            self.close();
        }
        self.raw.extend_from_slice(&bytes);
    }

    fn close(&mut self) {
        if self.raw.is_empty() {
            return;
        }
        let mut body = MAGIC.to_vec();
        if let Ok(frame) = zstd::bulk::compress(&self.raw, LEVEL) {
            body.extend(frame);
        }
        self.records.push(body);
        self.raw.clear();
    }

    /// The bodies of all records so far, each of at most [`MOST`] bytes.
    pub fn records(&mut self) -> Vec<Vec<u8>> {
        self.close();
        std::mem::take(&mut self.records)
    }
}

/// The pieces in the body of one record. Zeros that fill the record up are ignored.
pub fn unpack(body: &[u8]) -> Result<Vec<Piece>, Damaged> {
    let frame = body.strip_prefix(MAGIC).ok_or(Damaged::Magic)?;
    let len = zstd::zstd_safe::find_frame_compressed_size(frame).map_err(|_| Damaged::Compression)?;
    let frame = frame.get(..len).ok_or(Damaged::Compression)?;
    let raw = zstd::bulk::decompress(frame, RAW).map_err(|_| Damaged::Compression)?;
    let (out, rest) = of_bytes(&raw);
    if rest.is_empty() { Ok(out) } else { Err(Damaged::Pieces) }
}

/// The pieces in bytes that are not compressed, and what is left from the first one that cannot be read.
pub fn of_bytes(raw: &[u8]) -> (Vec<Piece>, &[u8]) {
    let (mut out, mut rest) = (Vec::new(), raw);
    while !rest.is_empty() {
        let Ok((piece, left)) = postcard::take_from_bytes(rest) else { break };
        out.push(piece);
        rest = left;
    }
    (out, rest)
}

/// The bytes of pieces, not compressed.
pub fn to_bytes(pieces: &[Piece]) -> Vec<u8> {
    pieces.iter().filter_map(|p| postcard::to_allocvec(p).ok()).flatten().collect()
}

/// Lists of 64-bit values as differences, because neighbours are mostly a page apart.
pub(crate) mod deltas {
    use super::{Deserializer, Serializer};
    use serde::{Deserialize as _, Serialize as _};

    pub(crate) fn serialize<S: Serializer>(values: &[u64], s: S) -> Result<S::Ok, S::Error> {
        let mut last = 0u64;
        let steps: Vec<i64> = values
            .iter()
            .map(|v| {
                let step = v.wrapping_sub(last) as i64;
                last = *v;
                step
            })
            .collect();
        steps.serialize(s)
    }

    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(d: D) -> Result<Vec<u64>, D::Error> {
        let mut last = 0u64;
        let steps = Vec::<i64>::deserialize(d)?;
        Ok(steps
            .into_iter()
            .map(|s| {
                last = last.wrapping_add(s as u64);
                last
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mmu, Slot, Table, Vcpu, Vm};

    fn table(n: u64) -> Piece {
        Piece::Table(Box::new(Table {
            from: n,
            to: n + 1,
            page: n << 12,
            mmu: Mmu::Tdp,
            as_id: 0,
            level: 1,
            gfn: n << 9,
            direct: true,
            root: false,
            invalid: false,
            mirror: false,
            guest_mode: false,
            parent: Some((0x1000, 7)),
            // Values without any pattern, which need the most bytes.
            entries: (0..512u64)
                .map(|i| (i + n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(i as u32))
                .collect(),
            gfns: Vec::new(),
        }))
    }

    fn pieces() -> Vec<Piece> {
        let vm = Vm {
            at: 5,
            pid: 7,
            name: "qemu".into(),
            vcpus: vec![Vcpu { number: 0, tid: Some(8) }, Vcpu { number: 1, tid: None }],
            slots: vec![Slot { as_id: 0, id: 3, gfn: 256, pages: 1 << 20, hva: 0x7f00_0000_0000, flags: 1 }],
        };
        let mut all = vec![Piece::Begin { at: 5, all_on: Some(4) }, Piece::Vm(vm)];
        all.extend((0..100).map(table));
        all.push(Piece::VmEnd { at: 6, complete: true, notes: Vec::new() });
        all.push(Piece::End { at: 9, notes: vec!["nothing".into()] });
        all
    }

    #[test]
    fn pieces_come_back_whole_and_in_order() {
        let mut p = Packer::default();
        let all = pieces();
        for x in &all {
            p.push(x);
        }
        let records = p.records();
        assert!(records.len() > 1 && records.iter().all(|r| r.len() <= MOST));
        let back: Vec<Piece> = records
            .iter()
            .flat_map(|r| {
                let mut padded = r.clone();
                padded.resize(r.len().next_multiple_of(8), 0);
                unpack(&padded).expect("a record is whole")
            })
            .collect();
        assert_eq!(back, all);
    }

    #[test]
    fn damage_is_an_error_and_nothing_else() {
        let mut p = Packer::default();
        p.push(&table(3));
        let record = p.records().remove(0);
        for n in 0..record.len() {
            assert!(unpack(&record[..n]).is_err(), "cut at {n}");
        }
        for n in 0..record.len() {
            let mut bad = record.clone();
            bad[n] ^= 0x55;
            let _ = unpack(&bad);
        }
    }

    #[test]
    fn a_frame_that_claims_much_is_refused() {
        let mut body = MAGIC.to_vec();
        body.extend(zstd::bulk::compress(&vec![0; 8 << 20], 1).expect("zeros compress"));
        assert_eq!(unpack(&body), Err(Damaged::Compression));
    }
}
