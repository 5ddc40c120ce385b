//! The tables at the bottom of the window: which one is open, and the state of each.

use egui::Ui;
use mmuscope_replay::EventIx;

use super::Cx;
use crate::command::Command;
use crate::contain::Contained;
use crate::widgets::rows::Scroll;

/// The tables that can be open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tab {
    #[default]
    Events,
    Findings,
    Story,
    Spans,
    Tree,
    Between,
    Huge,
    Layout,
    Recording,
    Notes,
}

impl Tab {
    pub(crate) const ALL: [(Self, Command); 10] = [
        (Self::Events, Command::TabEvents),
        (Self::Findings, Command::TabFindings),
        (Self::Story, Command::TabStory),
        (Self::Spans, Command::TabChanges),
        (Self::Tree, Command::TabTree),
        (Self::Between, Command::TabBetween),
        (Self::Huge, Command::TabHuge),
        (Self::Layout, Command::TabLayout),
        (Self::Recording, Command::TabRecording),
        (Self::Notes, Command::TabNotes),
    ];

    /// The word for the tab in links.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Findings => "findings",
            Self::Story => "life",
            Self::Spans => "spans",
            Self::Tree => "tree",
            Self::Between => "a-to-b",
            Self::Huge => "huge",
            Self::Layout => "layout",
            Self::Recording => "recording",
            Self::Notes => "notes",
        }
    }

    /// The tab with this word.
    pub(crate) fn named(word: &str) -> Option<Self> {
        Self::ALL.iter().map(|(t, _)| *t).find(|t| t.word() == word)
    }

    /// The tab a command opens.
    pub(crate) fn of(command: Command) -> Option<Self> {
        Self::ALL.iter().find(|(_, c)| *c == command).map(|(t, _)| *t)
    }
}

/// State of the tables.
pub(crate) struct Tables {
    /// The table that is open.
    pub(crate) tab: Tab,
    /// State of the event table.
    pub(crate) events: super::events::EventTable,
    /// State of the tab of findings and hot pages.
    pub(crate) findings: super::findings::State,
    /// State of the list of hot pages.
    pub(crate) hot: super::hot::State,
    /// State of the difference of two moments.
    pub(crate) between: super::between::State,
    /// State of the huge pages.
    pub(crate) huge: super::huge::State,
    /// State of the notes.
    pub(crate) notes: super::notes::State,
    /// State of the page tables of the selected frame.
    pub(crate) tree: super::tree::State,
    /// State of the story of the page.
    pub(crate) story: super::page::Cached,
    /// Scroll position of the spans of the page.
    pub(crate) spans: Scroll,
}

impl Tables {
    /// Tables without a filter, scrolled to the top.
    pub(crate) fn new(ctx: &egui::Context, inline: bool) -> Self {
        Self {
            tab: Tab::default(),
            events: super::events::EventTable::new(ctx, inline),
            findings: super::findings::State::default(),
            hot: super::hot::State::new(ctx, inline),
            between: super::between::State::new(ctx, inline),
            huge: super::huge::State::new(ctx, inline),
            notes: super::notes::State::default(),
            tree: super::tree::State::default(),
            story: super::page::Cached::default(),
            spans: Scroll::default(),
        }
    }

    /// Brings an event into view in the event table.
    pub(crate) fn show_event(&mut self, ix: EventIx) {
        self.events.reveal = Some(ix);
    }
}

/// A panel lower than this, in points, has no room for more than the rows and what belongs to them.
const LOW: f32 = 196.0;

/// Draws the names of the tabs.
fn tabs(ui: &mut Ui, cx: &mut Cx<'_>) {
    // Ten names fit into a line beside the details.
    ui.spacing_mut().item_spacing.x = 2.0;
    ui.spacing_mut().button_padding.x = 3.0;
    for (tab, command) in Tab::ALL {
        let spec = command.spec();
        let tip = format!("{} ({})", spec.help, crate::keys::keys_text(spec));
        let name = egui::RichText::new(spec.name).size(12.0);
        if ui.selectable_label(cx.doc.tables.tab == tab, name).on_hover_text(tip).clicked() {
            cx.doc.tables.tab = tab;
        }
    }
}

/// Draws the tabs and the open table.
pub(crate) fn show(ui: &mut Ui, cx: &mut Cx<'_>, contained: &mut Contained) {
    // The filter is beside the tabs if there is room, else in a row of its own.
    let wide = cx.doc.tables.tab == Tab::Events && ui.available_width() > 1240.0;
    // In a low window the rows keep the room: the tabs are one line that scrolls.
    let low = ui.available_height() < LOW;
    if low {
        egui::ScrollArea::horizontal().id_salt("tabs").show(ui, |ui| ui.horizontal(|ui| tabs(ui, cx)));
    } else {
        ui.horizontal_wrapped(|ui| {
            tabs(ui, cx);
            if wide {
                ui.separator();
                super::events::filter_bar(ui, cx);
            }
        });
    }
    let wide = wide && !low;
    if !low || !cx.doc.scopes.now().is_all() {
        super::crumbs::show(ui, cx);
    }
    if cx.doc.tables.tab == Tab::Events && !wide {
        ui.horizontal_wrapped(|ui| super::events::filter_bar(ui, cx));
    }
    if cx.doc.tables.tab == Tab::Events {
        super::events::filter_error(ui, cx);
    }
    match cx.doc.tables.tab {
        Tab::Events => contained.show(ui, "Events", |ui| super::events::show(ui, cx)),
        Tab::Findings => contained.show(ui, "Findings", |ui| super::findings::show(ui, cx)),
        Tab::Tree => contained.show(ui, "Page tables", |ui| super::tree::show(ui, cx)),
        Tab::Between => contained.show(ui, "A to B", |ui| super::between::show(ui, cx)),
        Tab::Huge => contained.show(ui, "Huge pages", |ui| super::huge::show(ui, cx)),
        Tab::Notes => contained.show(ui, "Notes", |ui| super::notes::show(ui, cx)),
        Tab::Story => contained.show(ui, "Life of the page", |ui| super::page::story(ui, cx)),
        Tab::Spans => contained.show(ui, "Spans of the page", |ui| super::page::spans(ui, cx)),
        Tab::Layout => contained.show(ui, "Layout", |ui| super::provenance::layout(ui, cx)),
        Tab::Recording => contained.show(ui, "Recording", |ui| super::provenance::recording(ui, cx)),
    }
    // A tab with little to say does not make the panel low for the next.
    let rest = ui.available_size_before_wrap();
    if rest.y > 1.0 {
        ui.allocate_space(rest);
    }
}
