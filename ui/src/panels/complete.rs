//! Completion of the filter: what can stand at the caret, as a list under the box. `Tab` takes the first, arrows choose another.

use egui::{Id, Key, Modifiers, RichText, Ui};
use mmuscope_analysis::events::EVENTS;
use mmuscope_analysis::table::{Column, Kind};

use crate::capture::Capture;
use crate::theme::Tokens;

/// Most suggestions in the list.
const MOST: usize = 9;

/// What can stand at the caret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Where what is typed of it begins, in bytes.
    from: usize,
    /// Each with what it means.
    words: Vec<(String, String)>,
}

/// Words of a filter, cut at the caret.
fn words(text: &str) -> Vec<(usize, &str)> {
    let mut out = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let end = if c.is_whitespace() {
            continue;
        } else if c == '\'' || c == '"' {
            let close = chars.by_ref().find(|(_, d)| *d == c);
            close.map_or(text.len(), |(i, d)| i + d.len_utf8())
        } else {
            let same = |d: char| {
                let word = |x: char| x.is_alphanumeric() || x == '_' || x == '.';
                if word(c) { word(d) } else { "=!<>&|".contains(c) && "=!<>&|".contains(d) }
            };
            let mut end = at + c.len_utf8();
            while let Some((i, d)) = chars.peek().copied().filter(|(_, d)| same(*d)) {
                end = i + d.len_utf8();
                chars.next();
            }
            end
        };
        out.push((at, &text[at..end]));
    }
    out
}

fn column(word: &str) -> Option<&'static Column> {
    EVENTS.columns.iter().find(|c| c.name == word)
}

/// The texts that a column holds in this trace, as far as they are few.
fn values(cap: &Capture, column: &Column) -> Vec<(String, String)> {
    match column.name {
        "event" => {
            let count = |n: u64| crate::fmt::plural(n, "event", "events");
            cap.timeline.event_counts().into_iter().map(|(n, c)| (format!("'{n}'"), count(c))).collect()
        }
        "comm" => {
            let mut names: Vec<String> = cap
                .timeline
                .vms()
                .iter()
                .flat_map(|v| v.vcpus.iter().map(|c| c.comm.clone()).chain([v.comm.clone()]))
                .filter(|n| !n.is_empty() && !n.contains(['\'', '"']))
                .collect();
            names.sort_unstable();
            names.dedup();
            names.into_iter().map(|n| (format!("'{n}'"), "a task of a VM".to_owned())).collect()
        }
        _ => Vec::new(),
    }
}

/// What can stand at the end of a text.
pub(crate) fn offer(cap: &Capture, text: &str) -> Offer {
    let all = words(text);
    let open =
        |w: &str| w.starts_with(['\'', '"']) && (w.len() == 1 || !w.ends_with(w.as_bytes()[0] as char));
    let (typed, before) = match all.split_last() {
        Some(((at, w), before))
            if text.ends_with(w) && (open(w) || w.starts_with(|c: char| c.is_alphanumeric())) =>
        {
            (Some((*at, *w)), before)
        }
        _ => (None, &all[..]),
    };
    let (from, prefix) = typed.unwrap_or((text.len(), ""));
    let last = before.last().map(|w| w.1);
    let named = before.iter().rev().find_map(|(_, w)| column(w));
    let plain = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        list.iter().map(|(w, about)| ((*w).to_owned(), (*about).to_owned())).collect()
    };
    let columns = || -> Vec<(String, String)> {
        let mut all: Vec<_> = EVENTS.columns.iter().map(|c| (c.name.to_owned(), c.doc.to_owned())).collect();
        all.push(("not".to_owned(), "the opposite of what follows".to_owned()));
        all
    };
    let found = match last {
        None | Some("and" | "or" | "not" | "(") => columns(),
        Some("==" | "!=" | "contains" | "like" | "in" | ",") => {
            named.map(|c| values(cap, c)).unwrap_or_default()
        }
        Some(w) if column(w).is_some_and(|c| c.kind == Kind::Text) => plain(&[
            ("==", "is"),
            ("!=", "is not"),
            ("contains", "has in it"),
            ("like", "matches a pattern with % and _"),
            ("in", "is one of a list in brackets"),
        ]),
        Some(w) if column(w).is_some() => plain(&[
            ("==", "is"),
            ("!=", "is not"),
            ("<", "is less than"),
            (">=", "is at least"),
            ("in", "is one of a list in brackets"),
            ("&", "the bits that both have"),
        ]),
        Some(w) if w.starts_with(['\'', '"', ')']) || w.starts_with(|c: char| c.is_ascii_digit()) => {
            plain(&[("and", "both"), ("or", "one of both")])
        }
        Some(_) => Vec::new(),
    };
    let low = prefix.to_lowercase();
    let bare = low.trim_start_matches(['\'', '"']);
    // What is complete needs no list.
    let fits = |w: &str| w != prefix && w.trim_start_matches('\'').starts_with(bare);
    let words: Vec<_> = found.into_iter().filter(|(w, _)| fits(w)).take(MOST).collect();
    // Before anything is typed, a list would only be in the way.
    if text.trim().is_empty() || bare.is_empty() && typed.is_none() && !text.ends_with([' ', '(', ',']) {
        return Offer::default();
    }
    Offer { from, words }
}

impl Offer {
    /// Whether nothing is suggested.
    pub(crate) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The text with one of the suggestions in it.
    fn taken(&self, text: &str, n: usize) -> Option<String> {
        Some(format!("{}{} ", &text[..self.from], self.words.get(n)?.0))
    }
}

/// Which suggestion is chosen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct State {
    chosen: usize,
    /// Whether the user has chosen with the arrows, so that Enter takes it.
    moved: bool,
}

/// Takes the keys of the list before the box sees them. True if a suggestion was taken.
pub(crate) fn keys(ui: &Ui, state: &mut State, offer: &Offer, text: &mut String) -> bool {
    if offer.words.is_empty() {
        *state = State::default();
        return false;
    }
    state.chosen = state.chosen.min(offer.words.len() - 1);
    let pressed = |key: Key| ui.input_mut(|i| i.consume_key(Modifiers::NONE, key));
    if pressed(Key::ArrowDown) {
        state.chosen = (state.chosen + usize::from(state.moved)).min(offer.words.len() - 1);
        state.moved = true;
    }
    if pressed(Key::ArrowUp) {
        state.chosen = state.chosen.saturating_sub(1);
    }
    let take = pressed(Key::Tab) || state.moved && pressed(Key::Enter);
    if let Some(new) = offer.taken(text, state.chosen).filter(|_| take) {
        *text = new;
        *state = State::default();
        return true;
    }
    false
}

/// Puts the caret at the end, after a suggestion was taken.
pub(crate) fn caret_to_end(ui: &Ui, edit: Id, text: &str) {
    if let Some(mut s) = egui::TextEdit::load_state(ui.ctx(), edit) {
        let end = egui::text::CCursor::new(text.chars().count());
        s.cursor.set_char_range(Some(egui::text::CCursorRange::one(end)));
        s.store(ui.ctx(), edit);
    }
}

/// Whether the caret is at the end of the text: only there are words suggested.
pub(crate) fn at_end(ui: &Ui, edit: Id, text: &str) -> bool {
    let range = egui::TextEdit::load_state(ui.ctx(), edit).and_then(|s| s.cursor.char_range());
    range.is_none_or(|r| r.primary.index.0 >= text.chars().count())
}

/// Draws the list under the box. True if one was clicked, which `text` then has.
pub(crate) fn list(
    t: &Tokens,
    edit: &egui::Response,
    state: State,
    offer: &Offer,
    text: &mut String,
) -> bool {
    let mut taken = None;
    egui::Popup::from_response(edit)
        .open(!offer.words.is_empty())
        .close_behavior(egui::PopupCloseBehavior::IgnoreClicks)
        .show(|ui| {
            ui.set_min_width(320.0);
            for (n, (word, about)) in offer.words.iter().enumerate() {
                ui.horizontal(|ui| {
                    let label =
                        ui.selectable_label(n == state.chosen, RichText::new(word).monospace().size(11.5));
                    if label.clicked() {
                        taken = Some(n);
                    }
                    let about: String = about.chars().take(72).collect();
                    ui.label(RichText::new(about).size(11.0).color(t.muted));
                });
            }
            ui.label(RichText::new("Tab takes it, ↓ ↑ choose").size(10.5).color(t.faint));
        });
    match taken.and_then(|n| offer.taken(text, n)) {
        Some(new) => {
            *text = new;
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(text: &str) -> Vec<String> {
        let trace = mmuscope_trace::Trace::from_text(crate::tests::TEXT).expect("a trace");
        let timeline = mmuscope_replay::replay(&trace, &mmuscope_replay::ReplayOptions::default());
        let cap = Capture {
            trace,
            timeline,
            paths: Vec::new(),
            version: 0,
            growing: false,
            took: std::time::Duration::ZERO,
        };
        offer(&cap, text).words.into_iter().map(|w| w.0).collect()
    }

    #[test]
    fn what_can_stand_at_the_caret_is_offered_and_nothing_else() {
        assert!(words_of("").is_empty() && words_of("   ").is_empty());
        assert_eq!(words_of("even")[0], "event");
        assert!(words_of("event ").contains(&"contains".to_owned()));
        assert!(
            words_of("gfn ").contains(&">=".to_owned()) && !words_of("gfn ").contains(&"like".to_owned())
        );
        assert_eq!(words_of("event == 'kvm_page"), ["'kvm_page_fault'"]);
        assert!(words_of("event == ").contains(&"'kvm_entry'".to_owned()));
        assert!(words_of("event in ('kvm_entry', 'kvm_ex").contains(&"'kvm_exit'".to_owned()));
        assert_eq!(words_of("event == 'kvm_entry' "), ["and", "or"]);
        assert!(words_of("gfn >= 0x100 an").contains(&"and".to_owned()));
        assert!(words_of("gfn >= 0x100 and new").contains(&"new_spte".to_owned()));
        assert!(words_of("gfn == 5").is_empty(), "a number is not completed");
        assert!(words_of("event == 'kvm_entry'").is_empty(), "nor is a text that is closed");
        assert!(!words_of("event == '").is_empty());
        assert!(words_of("event").iter().all(|w| w != "event"), "a complete word is not offered");
    }
}
