//! The panel that explains a value somebody pastes: what `mmuscope decode` says, with bits and fields linked. Another layout or level makes
//! everything follow.

use egui::{RichText, ScrollArea, Ui};
use mmuscope_analysis::pasted;
use mmuscope_spte::bugs::{Bugs, traits_of};
use mmuscope_spte::infer::Judgement;
use mmuscope_spte::layouts::Library;
use mmuscope_spte::{LayoutSpec, Resolved};
use mmuscope_trace::paste::{Found, Pasted};

use crate::capture::Explained;
use crate::fmt;
use crate::theme::Tokens;
use crate::widgets::bits;

/// Most values of a text that are listed.
const MOST: usize = 200;

/// The layout that values are read under.
#[derive(Clone, Debug, PartialEq)]
enum Choice {
    /// The one that fits them best.
    Inferred,
    /// That of the open trace.
    Trace,
    /// One of the shipped layouts, by name.
    Named(String),
}

/// What is known of the values, made anew when text, layout or level change.
struct Reading {
    pasted: Pasted,
    resolved: Option<Resolved>,
    /// How the layout was found.
    how: String,
    judgement: Option<Judgement>,
    /// Known bugs that the text looks like.
    bugs: Vec<(String, String)>,
    error: Option<String>,
}

/// State of the panel.
pub(crate) struct Decode {
    text: String,
    choice: Choice,
    level: Option<u8>,
    /// The value that is explained, and the one that it is compared with.
    chosen: usize,
    other: Option<usize>,
    /// Layout of the open trace.
    trace: Option<Box<Resolved>>,
    names: Vec<String>,
    made_of: Option<(String, Choice, Option<u8>)>,
    reading: Option<Reading>,
    lit: u64,
    opened: bool,
}

impl std::fmt::Debug for Decode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decode").field("text", &self.text).finish_non_exhaustive()
    }
}

impl Decode {
    /// Explains a text; `trace` is the layout of the open trace, which is then the first choice.
    pub(crate) fn new(text: String, trace: Option<&Resolved>) -> Self {
        Self {
            text,
            choice: if trace.is_some() { Choice::Trace } else { Choice::Inferred },
            level: None,
            chosen: 0,
            other: None,
            trace: trace.cloned().map(Box::new),
            names: Library::new().names().unwrap_or_default(),
            made_of: None,
            reading: None,
            lit: 0,
            opened: false,
        }
    }

    fn update(&mut self) {
        let key = (self.text.clone(), self.choice.clone(), self.level);
        if self.made_of.as_ref() == Some(&key) {
            return;
        }
        if self.made_of.as_ref().is_some_and(|m| m.0 != key.0) {
            (self.chosen, self.other) = (0, None);
        }
        self.made_of = Some(key);
        let (pasted, events) = pasted::read(&self.text);
        let spec = match &self.choice {
            Choice::Named(name) => LayoutSpec::named(name).unwrap_or_default(),
            _ => LayoutSpec::default(),
        };
        let evidence = pasted::gather(&pasted, self.level, events.as_ref());
        let judged = pasted::judge(&spec, &pasted, self.level, &evidence, &Library::new());
        let (mut resolved, mut how, mut error) = (None, String::new(), None);
        match (&self.choice, &judged) {
            (Choice::Trace, _) => {
                resolved = self.trace.as_deref().cloned();
                "of this trace".clone_into(&mut how);
            }
            (Choice::Named(_), _) => match spec.resolve() {
                Ok(r) => {
                    resolved = Some(r);
                    "chosen".clone_into(&mut how);
                }
                Err(e) => error = Some(e.to_string()),
            },
            (Choice::Inferred, Ok(j)) => {
                resolved = j.best().map(|c| c.resolved.clone());
                how = if j.is_settled() {
                    "inferred from the values".to_owned()
                } else {
                    format!("the likeliest of {} readings", j.plausible.len())
                };
            }
            (Choice::Inferred, Err(e)) => error = Some(e.to_string()),
        }
        let judgement = judged.ok().filter(|_| self.choice == Choice::Inferred);
        let bugs = judgement.as_ref().map_or_else(Vec::new, |j| {
            let Ok(known) = Bugs::known() else { return Vec::new() };
            let mut traits = traits_of(&evidence, j);
            traits.extend(events.iter().flat_map(|e| e.traits.iter().copied()));
            known
                .like(&traits, j.releases())
                .into_iter()
                .map(|b| (b.title.to_owned(), format!("{}; fixed: {}; {}", b.kernels(), b.fixed, b.written)))
                .collect()
        });
        self.reading = Some(Reading { pasted, resolved, how, judgement, bugs, error });
    }
}

/// Draws the panel. It returns true if the user closed it.
pub(crate) fn show(ui: &mut Ui, t: &Tokens, d: &mut Decode) -> bool {
    ui.set_width((ui.ctx().content_rect().width() - 80.0).clamp(420.0, 900.0));
    let mut close = false;
    ui.horizontal(|ui| {
        ui.heading("Decode");
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            close = ui.button("Close").clicked();
        });
    });
    let edit = ui.add(
        egui::TextEdit::multiline(&mut d.text)
            .desired_rows(2)
            .desired_width(f32::INFINITY)
            .font(crate::theme::mono(12.0))
            .hint_text(
                "paste an SPTE (0x600000123456b77), two to compare, a trace line, or a dump from dmesg",
            ),
    );
    crate::widgets::name_edit(&edit, "Text to decode", &d.text);
    if !std::mem::replace(&mut d.opened, true) {
        edit.request_focus();
    }
    choices(ui, d);
    d.update();
    ui.separator();
    let height = (ui.ctx().content_rect().height() - 220.0).clamp(160.0, 640.0);
    ScrollArea::vertical().max_height(height).min_scrolled_height(height).auto_shrink([false, true]).show(
        ui,
        |ui| {
            let Some(reading) = d.reading.take() else { return };
            answer(ui, t, d, &reading);
            d.reading = Some(reading);
        },
    );
    close
}

/// Draws the choosers of layout and level.
fn choices(ui: &mut Ui, d: &mut Decode) {
    ui.horizontal(|ui| {
        ui.label("layout");
        let name = match &d.choice {
            Choice::Inferred => "the one that fits best".to_owned(),
            Choice::Trace => "that of this trace".to_owned(),
            Choice::Named(name) => name.clone(),
        };
        let combo = egui::ComboBox::from_id_salt("decode-layout").selected_text(&name).width(200.0).show_ui(
            ui,
            |ui| {
                ui.selectable_value(&mut d.choice, Choice::Inferred, "the one that fits best");
                if let Some(r) = &d.trace {
                    ui.selectable_value(
                        &mut d.choice,
                        Choice::Trace,
                        format!("that of this trace ({})", r.layout.id()),
                    );
                }
                for name in &d.names {
                    ui.selectable_value(&mut d.choice, Choice::Named(name.clone()), name);
                }
            },
        );
        combo
            .response
            .widget_info(|| egui::WidgetInfo::labeled(egui::Role::ComboBox, true, format!("Layout: {name}")));
        ui.label("level");
        let shown = d.level.map_or_else(|| "likely".to_owned(), |l| l.to_string());
        let combo = egui::ComboBox::from_id_salt("decode-level").selected_text(&shown).width(110.0).show_ui(
            ui,
            |ui| {
                ui.selectable_value(&mut d.level, None, "likely");
                for (level, size) in [(1, "4K"), (2, "2M"), (3, "1G"), (4, "512G"), (5, "256T")] {
                    ui.selectable_value(&mut d.level, Some(level), format!("{level} ({size})"));
                }
            },
        );
        combo
            .response
            .widget_info(|| egui::WidgetInfo::labeled(egui::Role::ComboBox, true, format!("Level: {shown}")));
    });
}

fn answer(ui: &mut Ui, t: &Tokens, d: &mut Decode, r: &Reading) {
    if let Some(e) = &r.error {
        ui.add(egui::Label::new(RichText::new(e).color(t.bad)).wrap());
    }
    if r.pasted.values.is_empty() {
        let words = if d.text.trim().is_empty() {
            "Nothing to decode yet."
        } else {
            "No SPTE value found: give hex numbers, or text with `spte = 0x…`, trace lines or debugger output."
        };
        ui.label(RichText::new(words).color(t.muted));
        bugs(ui, t, r);
        return;
    }
    let Some(resolved) = &r.resolved else { return };
    ui.horizontal_wrapped(|ui| {
        ui.label(RichText::new(resolved.layout.id()).monospace().strong());
        ui.label(RichText::new(resolved.layout.mode.words()).color(t.muted));
        if let Some(k) = resolved.kernel {
            ui.label(RichText::new(format!("kernel {}", k.value)).color(t.muted));
        }
        ui.label(RichText::new(&r.how).color(t.muted));
    });
    if let Some(said) = r.judgement.as_ref().and_then(Judgement::contradiction) {
        ui.add(egui::Label::new(RichText::new(said).size(11.5).color(t.warn)).wrap());
    }
    values(ui, t, d, r, resolved);
    let Some(found) = r.pasted.values.get(d.chosen) else { return };
    let level = |f: &Found| pasted::level_of(f, d.level, r.judgement.as_ref(), &resolved.layout);
    let (at, said) = level(found);
    let before = d.other.and_then(|i| r.pasted.values.get(i)).filter(|o| level(o).0 == at);
    ui.add_space(4.0);
    ui.horizontal(|ui| {
        ui.label(RichText::new(fmt::spte(found.value)).monospace().size(15.0).strong());
        let gfn = found.gfn.map_or_else(String::new, |g| format!(", gfn {}", fmt::gfn(g)));
        let place = format!("level {at}{}{gfn}", if said { "" } else { " (likely)" });
        ui.label(RichText::new(place).color(t.muted));
    });
    let e = Explained::of(resolved, found.value, at);
    ui.label(&e.headline);
    ui.add_space(4.0);
    let over = bits::diagram(ui, t, found.value, before.map(|b| b.value), &e.fields, d.lit);
    ui.add_space(4.0);
    let listed = bits::list(ui, t, &e.fields, d.lit);
    let lit = over.or(listed).unwrap_or(0);
    if lit != d.lit {
        d.lit = lit;
        ui.ctx().request_repaint();
    }
    effects(ui, t, &e);
    if let Some(b) = before {
        change(ui, t, resolved, (b.value, found.value), at);
    }
    bugs(ui, t, r);
    why(ui, t, r);
}

/// Draws the values of the text, where there are several; one is explained, another may be compared with it.
fn values(ui: &mut Ui, t: &Tokens, d: &mut Decode, r: &Reading, resolved: &Resolved) {
    let all = &r.pasted.values;
    if all.len() < 2 {
        return;
    }
    if all.len() == 2 && d.other.is_none() && d.chosen == 0 {
        // Two values are most often one entry before and after.
        (d.chosen, d.other) = (1, Some(0));
    }
    ui.label(
        RichText::new("A click explains a value; with Shift it is what the other is compared with.")
            .size(11.5)
            .color(t.muted),
    );
    ui.horizontal_wrapped(|ui| {
        for (i, f) in all.iter().enumerate().take(MOST) {
            let (level, _) = pasted::level_of(f, d.level, r.judgement.as_ref(), &resolved.layout);
            let mark = if d.other == Some(i) { "before: " } else { "" };
            let text = RichText::new(format!("{mark}{} L{level}", fmt::spte(f.value))).monospace().size(11.5);
            if ui.selectable_label(d.chosen == i, text).clicked() {
                if ui.input(|i| i.modifiers.shift) {
                    d.other = (d.other != Some(i)).then_some(i);
                } else {
                    d.chosen = i;
                }
            }
        }
        if all.len() > MOST {
            ui.label(RichText::new(format!("and {} more", all.len() - MOST)).color(t.muted));
        }
    });
}

fn effects(ui: &mut Ui, t: &Tokens, e: &Explained) {
    if !e.effects.is_empty() {
        ui.add_space(4.0);
        ui.label(RichText::new("What an access does").strong());
    }
    for (access, allowed, text) in &e.effects {
        ui.horizontal_top(|ui| {
            ui.label(RichText::new(*access).color(if *allowed { t.good } else { t.bad }).size(11.5));
            ui.add(egui::Label::new(RichText::new(text).size(11.5).color(t.muted)).wrap());
        });
    }
    for note in &e.notes {
        ui.add(egui::Label::new(RichText::new(format!("• {note}")).size(12.0)).wrap());
    }
}

/// Draws what changed from one value to the other, and which path of the kernel does that.
fn change(ui: &mut Ui, t: &Tokens, resolved: &Resolved, (old, new): (u64, u64), level: u8) {
    let c = mmuscope_spte::changes(resolved, old, new, level, false);
    ui.add_space(6.0);
    ui.label(RichText::new(format!("From {} to this", fmt::spte(old))).strong());
    ui.label(&c.headline);
    for f in &c.fields {
        ui.label(RichText::new(format!("{}: {} → {}", f.field, f.old, f.new)).monospace().size(11.5));
    }
    for path in &c.paths {
        ui.add(egui::Label::new(RichText::new(format!("• {path}")).size(11.5).color(t.muted)).wrap());
    }
    if let Some(problem) = c.problem {
        ui.add(egui::Label::new(RichText::new(problem).color(t.bad)).wrap());
    }
}

fn bugs(ui: &mut Ui, t: &Tokens, r: &Reading) {
    for (title, more) in &r.bugs {
        ui.add_space(4.0);
        ui.add(egui::Label::new(RichText::new(format!("Looks like {title}")).color(t.warn).strong()).wrap());
        ui.add(egui::Label::new(RichText::new(more).size(11.5).color(t.muted)).wrap());
    }
}

/// Draws why this layout and not the next.
fn why(ui: &mut Ui, t: &Tokens, r: &Reading) {
    let Some(j) = &r.judgement else { return };
    let list = |ui: &mut Ui, head: &str, lines: &[String]| {
        if lines.is_empty() {
            return;
        }
        ui.label(RichText::new(head).strong().size(11.5).color(t.muted));
        for line in lines {
            ui.add(egui::Label::new(RichText::new(format!("• {line}")).size(11.5)).wrap());
        }
    };
    ui.add_space(6.0);
    list(ui, "Why this layout", &j.why.best);
    list(ui, "What speaks against it", &j.why.doubts);
    if let Some(next) = &j.why.next {
        list(ui, &format!("Why not {next}"), &j.why.against);
    }
    if !j.is_settled() {
        let readings: Vec<String> = j.plausible.iter().map(|p| p.whose.clone()).collect();
        list(ui, "Plausible readings", &readings);
        list(ui, "What would decide between them", &j.settle);
    }
}
