//! Renders the report of a trace: `render TRACE… -o out.html` (`.md` and `.json` work as well).
use std::{path::PathBuf, time::Instant};

use mmuscope_replay::{ReplayOptions, replay};
use mmuscope_report::{Options, Report, render_html, render_json, render_markdown};
use mmuscope_trace::{ReadOptions, Trace};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut inputs: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let at = inputs.iter().position(|a| a.as_os_str() == "-o").ok_or("usage: render TRACE… -o OUT")?;
    let out = inputs.get(at + 1).cloned().ok_or("usage: render TRACE… -o OUT")?;
    inputs.truncate(at);
    let mut last = Instant::now();
    let mut lap = |what: &str| {
        eprintln!("{what}: {:.0} ms", last.elapsed().as_secs_f64() * 1000.0);
        last = Instant::now();
    };
    let trace = Trace::load(&inputs, &ReadOptions::default())?;
    lap("read");
    let timeline = replay(&trace, &ReplayOptions::default());
    lap("replay");
    let format = out.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let report =
        Report::new(&trace, &timeline, &Options { pictures: format == "html", ..Options::default() });
    lap("gather");
    let text = match format {
        "md" => render_markdown(&report),
        "json" => render_json(&report)?,
        _ => render_html(&report),
    };
    lap("render");
    std::fs::write(out, text)?;
    Ok(())
}
