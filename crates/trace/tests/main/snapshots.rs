//! Parts of a snapshot in a capture: they become events at their times, and damage to one leaves the others.

use std::path::Path;

use mmuscope_trace::snapshot::{Packer, Piece, Vm};
use mmuscope_trace::{Body, ReadOptions, Trace};

/// A capture without events, with one record for each piece. It gives the bytes and where each record begins.
fn capture(pieces: &[Piece]) -> (Vec<u8>, Vec<usize>) {
    let mut out = b"PERFILE2".to_vec();
    out.extend(16u64.to_le_bytes());
    let mut starts = Vec::new();
    for p in pieces {
        let mut packer = Packer::default();
        packer.push(p);
        for mut body in packer.records() {
            body.resize(body.len().next_multiple_of(8), 0);
            starts.push(out.len());
            out.extend(65u32.to_le_bytes());
            out.extend(0u16.to_le_bytes());
            out.extend(((body.len() + 8) as u16).to_le_bytes());
            out.extend(body);
        }
    }
    (out, starts)
}

fn pieces() -> Vec<Piece> {
    vec![
        Piece::Begin { at: 100, all_on: Some(100) },
        Piece::Vm(Vm { at: 200, pid: 7, name: "vm".into(), ..Vm::default() }),
        Piece::VmEnd { at: 300, complete: true, notes: vec!["a note".into()] },
        Piece::End { at: 400, notes: Vec::new() },
    ]
}

fn read(bytes: &[u8]) -> Trace {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("x.perf.data");
    std::fs::write(&file, bytes).expect("a file");
    let options = ReadOptions::default();
    Trace::load(&[Path::new(&file).to_path_buf()], &options).expect("readable")
}

fn held(t: &Trace) -> Vec<(u64, Piece)> {
    t.events
        .iter()
        .filter_map(|e| match e.body {
            Body::Snapshot { index } => Some((e.ts, (*t.info.snapshots[index as usize]).clone())),
            _ => None,
        })
        .collect()
}

#[test]
fn each_part_is_an_event_at_its_time() {
    let t = read(&capture(&pieces()).0);
    let times = [100, 200, 300, 400];
    assert_eq!(held(&t), times.into_iter().zip(pieces()).collect::<Vec<_>>());
    assert!(t.info.damage.is_empty(), "{:?}", t.info.damage);
}

#[test]
fn what_is_cut_or_damaged_is_left_out_and_said() {
    let (bytes, starts) = capture(&pieces());
    for n in 16..bytes.len() {
        let t = read(&bytes[..n]);
        let whole = starts[1..].iter().filter(|s| **s <= n).count();
        assert_eq!(held(&t).len(), whole, "cut at {n}");
    }
    // The second record: whatever is in it, the others are read.
    for at in starts[1] + 8..starts[2] {
        let mut bad = bytes.clone();
        bad[at] ^= 0xff;
        let t = read(&bad);
        let others = held(&t).into_iter().filter(|p| p.0 != 200).count();
        assert!(others >= 3 || !t.info.damage.is_empty(), "byte {at}");
    }
}
