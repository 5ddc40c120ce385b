//! The lines between events that are not events.

use super::repair;
use crate::info::TraceInfo;
use crate::schema::{Kind, tracepoint};
use mmuscope_units::counted;

/// Counts of lines that are not part of the trace.
#[derive(Clone, Debug, Default)]
pub(super) struct Skipped {
    pub(super) lines: u64,
    /// The beginning of the first such line.
    first: String,
    /// The number of lines of stack traces.
    stack: u64,
    /// The number of lines of the function graph tracer.
    graph: u64,
    /// The number of places between two events where a mark says that lines were left out.
    pub(super) cuts: u64,
    /// Whether a line shows the command that chose the lines.
    pub(super) filtered: bool,
}

impl Skipped {
    pub(super) fn add(&mut self, o: Self) {
        if self.first.is_empty() {
            self.first = o.first;
        }
        self.lines += o.lines;
        self.stack += o.stack;
        self.graph += o.graph;
        self.cuts += o.cuts;
        self.filtered |= o.filtered;
    }

    pub(super) fn notes(&self, info: &mut TraceInfo) {
        if self.lines > 0 {
            info.notes.push(format!(
                "{}, the first: {}",
                if self.lines == 1 {
                    "1 line is not an event and was skipped".to_owned()
                } else {
                    format!("{} lines are not events and were skipped", self.lines)
                },
                self.first
            ));
        }
        if self.cuts > 0 {
            info.notes.push(format!(
                "The text says itself that lines were left out, at {} (a line such as \"...\" or grep's \"--\"): what was known before is not \
                 known to be so after it",
                if self.cuts == 1 { "1 place".to_owned() } else { format!("{} places", self.cuts) }
            ));
        }
        if self.stack > 0 {
            info.notes.push(format!(
                "{} left out",
                counted(
                    self.stack,
                    "line of a stack trace between the events was",
                    "lines of stack traces between the events were"
                )
            ));
        }
        if self.graph > 0 {
            info.notes.push(format!(
                "{} left out",
                counted(
                    self.graph,
                    "line of the function graph tracer between the events was",
                    "lines of the function graph tracer between the events were"
                )
            ));
        }
    }

    /// Counts a line that is not an event; the result is `true` if it seems to have been one.
    pub(super) fn is_broken(&mut self, line: &[u8]) -> bool {
        let text = String::from_utf8_lossy(line);
        let text = text.trim();
        let indented = matches!(line, [b' ' | b'\t', ..]);
        if text.starts_with("=> ") || indented && repair::is_stack(text) {
            self.stack += 1;
        } else if is_graph(text) {
            self.graph += 1;
        } else if line.starts_with(b"trace-cmd") || repair::is_noise(text) {
            // Nothing is lost with it.
        } else if is_broken(line, text) {
            return true;
        } else {
            self.line(line);
        }
        false
    }

    fn line(&mut self, text: &[u8]) {
        const SHOWN: usize = 60;
        self.lines += 1;
        if self.first.is_empty() {
            let text = String::from_utf8_lossy(text);
            let text = text.trim();
            self.first = text.chars().take(SHOWN).collect();
            if text.chars().count() > SHOWN {
                self.first.push('…');
            }
        }
    }
}

/// Whether a line is of the function graph tracer: ` 3)   1.234 us    |  kvm_tdp_mmu_map();`.
pub(crate) fn is_graph(text: &str) -> bool {
    text.split_once(')').is_some_and(|(cpu, rest)| {
        !cpu.is_empty() && cpu.trim().bytes().all(|b| b.is_ascii_digit()) && rest.contains(" | ")
    })
}

/// Whether a line that cannot be read seems to have been an event: it names a tracepoint of KVM, has a CPU and a time, or is not text.
fn is_broken(line: &[u8], text: &str) -> bool {
    let binary = |b: &u8| *b < b' ' && *b != b'\t' || *b == 0x7f;
    let named = text.split_whitespace().any(|w| {
        w.strip_suffix(':').is_some_and(|w| {
            let name = w.rsplit(':').next().unwrap_or(w);
            tracepoint(name.as_bytes()).is_some_and(|tp| tp.kind != Kind::Marker)
        })
    });
    let cpu = || {
        text.split_once('[').and_then(|(_, r)| r.split_once(']')).is_some_and(|(cpu, rest)| {
            cpu.len() == 3
                && cpu.bytes().all(|b| b.is_ascii_digit())
                && rest.contains(|c: char| c.is_ascii_digit())
        })
    };
    line.iter().any(binary) || std::str::from_utf8(line).is_err() || named || cpu()
}
