//! Measures how many values one core decodes in a second: `cargo run --release -p mmuscope-spte --example throughput`.
//!
//! It prints one line for each layout, and the slowest one last. The values are what page tables hold: leaves, tables, MMIO and empty
//! entries, and random words, each in runs of random length as in real tables.

use std::hint::black_box;
use std::time::Instant;

use mmuscope_spte::{AdType, Error, Layout, LayoutSpec, Leaf};

/// A xorshift generator: the same values every time.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn values(layout: &Layout) -> Vec<(u64, u8)> {
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let (mut kind, mut left) = (0, 0);
    (0..1 << 14)
        .map(|_| {
            let random = next(&mut state);
            if left == 0 {
                (kind, left) = (random >> 8 & 15, 1 + (random >> 32 & 63));
            }
            left -= 1;
            let pfn = random >> 20 & 0x3ff_ffff;
            let leaf = Leaf {
                pfn,
                r: true,
                w: random & 1 == 0,
                x: true,
                xu: true,
                u: true,
                accessed: random & 2 == 0,
                dirty: random & 4 == 0,
                host_writable: true,
                mmu_writable: true,
                large: false,
                ad_type: AdType::Enabled,
                memtype: 6,
                ignore_pat: true,
                suppress_ve: true,
                encrypted: false,
            };
            match kind {
                0 => (layout.mmio(pfn & 0xf_ffff, 0, (random >> 50) as u32 & 0xff), 1),
                1 | 2 => (layout.zapped, 1),
                3 => (layout.table(pfn, AdType::Enabled), 2),
                4 => (random, (random >> 12 & 3) as u8 + 1),
                _ => (layout.leaf(&leaf), 1),
            }
        })
        .collect()
}

fn main() -> Result<(), Error> {
    let mut worst = f64::INFINITY;
    for name in ["E03/ept", "E08/npt", "E10/ept", "E13/ept-noad", "E13/npt", "E14/ept"] {
        let layout = LayoutSpec::find(name)?.layout;
        let values = values(&layout);
        let mut best = 0.0f64;
        // Rounds are short, so that the best of many was not interrupted by another program.
        for _ in 0..600 {
            let start = Instant::now();
            for &(raw, level) in &values {
                black_box(&layout.decode(black_box(raw), level));
            }
            best = best.max(values.len() as f64 / start.elapsed().as_secs_f64());
        }
        println!("{name:<14} {:.0} M decodes/s", best / 1e6);
        worst = worst.min(best);
    }
    println!("decode {:.0} M/s", worst / 1e6);
    Ok(())
}
