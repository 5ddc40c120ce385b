//! Prints what is known about a trace and the number of its events by name: `cargo run -p mmuscope-trace --example counts -- FILE…`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use mmuscope_trace::{ReadOptions, Trace, event_name};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let start = Instant::now();
    let trace = Trace::load(&paths, &ReadOptions::default())?;
    let took = start.elapsed();
    let mut counts = BTreeMap::<&str, u64>::new();
    for e in &trace.events {
        *counts.entry(event_name(&e.body, &trace.strings)).or_default() += 1;
    }
    for (name, n) in counts {
        println!("{n:>9}  {name}");
    }
    let n = trace.events.len();
    println!("{n} events in {took:?}, {:.1} bytes each", trace.events.heap_bytes() as f64 / n as f64);
    let mut info = trace.info.clone();
    let formats = std::mem::take(&mut info.formats);
    println!("{info:#?}\n{} formats", formats.len());
    Ok(())
}
