//! [`TABLE`]: what each command is called and does, and its keys. Menus, palette, shortcuts and the key help are all drawn from the table, so
//! that a command stands in one place.

use egui::{Key, KeyboardShortcut, Modifiers};

use crate::command::{Command, Group, Spec};

const fn key(k: Key) -> KeyboardShortcut {
    KeyboardShortcut::new(Modifiers::NONE, k)
}
const fn ctrl(k: Key) -> KeyboardShortcut {
    KeyboardShortcut::new(Modifiers::COMMAND, k)
}
const fn shift(k: Key) -> KeyboardShortcut {
    KeyboardShortcut::new(Modifiers::SHIFT, k)
}
const fn alt(k: Key) -> KeyboardShortcut {
    KeyboardShortcut::new(Modifiers::ALT, k)
}
const CTRL_SHIFT: Modifiers = Modifiers::COMMAND.plus(Modifiers::SHIFT);
const fn ctrl_shift(k: Key) -> KeyboardShortcut {
    KeyboardShortcut::new(CTRL_SHIFT, k)
}

const fn row(
    command: Command,
    group: Group,
    name: &'static str,
    help: &'static str,
    keys: &'static [KeyboardShortcut],
) -> Spec {
    Spec { command, group, name, help, keys, needs_trace: true }
}
#[expect(clippy::needless_pass_by_value, reason = "a constant's helper: it is evaluated by the compiler")]
const fn always(spec: Spec) -> Spec {
    Spec { needs_trace: false, ..spec }
}

/// All commands. The map itself handles movement keys, because they are held down; they are listed here so that the help shows them.
pub(crate) const TABLE: &[Spec] = &[
    always(row(Command::Open, Group::File, "Open…", "Choose a trace to open", &[ctrl(Key::O)])),
    row(
        Command::OpenBeside,
        Group::File,
        "Open beside…",
        "Choose another trace to show on the same time axis",
        &[],
    ),
    always(row(
        Command::Decode,
        Group::File,
        "Decode a value…",
        "Explain an SPTE that you paste, or the selected one, bit by bit",
        &[ctrl(Key::E)],
    )),
    row(Command::Reload, Group::File, "Reload", "Read the same trace again", &[ctrl(Key::R)]),
    row(
        Command::SavePicture,
        Group::File,
        "Save picture…",
        "Write the window as a PNG to a file that you name",
        &[ctrl(Key::S)],
    ),
    row(
        Command::SaveChanges,
        Group::File,
        "Save A to B…",
        "Write what changed between the cursors as CSV to a file that you name",
        &[],
    ),
    row(
        Command::SaveTable,
        Group::File,
        "Save table…",
        "Write the rows of the open table to a file that you name: CSV, or of events what the file's ending says",
        &[],
    ),
    row(
        Command::SaveSvg,
        Group::File,
        "Save map as SVG…",
        "Write the figure of the whole trace, as the report has it, to a file that you name",
        &[],
    ),
    row(
        Command::SaveSession,
        Group::File,
        "Save session…",
        "Keep notes and view in a file beside the trace, which is kept up to date from then on",
        &[],
    ),
    row(
        Command::CopyImage,
        Group::File,
        "Copy picture",
        "Put a picture of the window on the clipboard",
        &[ctrl_shift(Key::S)],
    ),
    row(
        Command::CopyLink,
        Group::File,
        "Copy link",
        "Copy the command line that opens this view again",
        &[ctrl(Key::L)],
    ),
    row(
        Command::CopyValue,
        Group::File,
        "Copy SPTE",
        "Copy the selected entry's raw value",
        &[ctrl_shift(Key::C)],
    ),
    always(row(Command::Quit, Group::File, "Quit", "Close the window", &[ctrl(Key::Q)])),
    row(
        Command::Fit,
        Group::Look,
        "Fit everything",
        "Show the whole trace and all of the GFN space",
        &[key(Key::F)],
    ),
    row(
        Command::FitSelection,
        Group::Look,
        "Fit selection",
        "Zoom to the selected span and its page",
        &[shift(Key::F)],
    ),
    row(
        Command::ZoomIn,
        Group::Look,
        "Zoom in",
        "Zoom into time (with Shift: into the GFN space)",
        &[key(Key::W)],
    ),
    row(
        Command::ZoomOut,
        Group::Look,
        "Zoom out",
        "Zoom out of time (with Shift: of the GFN space)",
        &[key(Key::S)],
    ),
    row(
        Command::PanLeft,
        Group::Look,
        "Earlier",
        "Move to earlier times",
        &[key(Key::A), key(Key::ArrowLeft)],
    ),
    row(Command::PanRight, Group::Look, "Later", "Move to later times", &[key(Key::D), key(Key::ArrowRight)]),
    row(Command::PanUp, Group::Look, "Higher frames", "Move to higher guest frames", &[key(Key::ArrowUp)]),
    row(Command::PanDown, Group::Look, "Lower frames", "Move to lower guest frames", &[key(Key::ArrowDown)]),
    row(
        Command::NextColour,
        Group::Look,
        "Colour by…",
        "Colour the map by state, page size, certainty, faults, zaps, age or host contiguity in turn",
        &[key(Key::C)],
    ),
    row(
        Command::ScopeView,
        Group::Look,
        "Narrow to the view",
        "Limit all tables to the time and the frames that the map shows",
        &[key(Key::R)],
    ),
    row(
        Command::ScopeCursors,
        Group::Look,
        "Narrow to A to B",
        "Limit all tables to the time between the cursors",
        &[],
    ),
    row(
        Command::ScopePage,
        Group::Look,
        "Narrow to the page",
        "Limit all tables to the frames of the selected entry",
        &[],
    ),
    row(
        Command::ScopeVcpu,
        Group::Look,
        "Narrow to the vCPU",
        "Limit all tables to the thread of the selected event",
        &[],
    ),
    row(
        Command::ScopeWiden,
        Group::Look,
        "Widen",
        "Take back the last narrowing of the tables",
        &[key(Key::Backspace)],
    ),
    row(Command::ScopeAll, Group::Look, "Whole trace", "Let all tables be about the whole trace again", &[]),
    row(
        Command::SwapTraces,
        Group::Look,
        "Other trace",
        "Let tables and details be about the other of two traces that are side by side",
        &[key(Key::X)],
    ),
    row(
        Command::ShiftEarlier,
        Group::Look,
        "Move it earlier",
        "Move the other trace against this one, to earlier times",
        &[key(Key::OpenBracket)],
    ),
    row(
        Command::ShiftLater,
        Group::Look,
        "Move it later",
        "Move the other trace against this one, to later times",
        &[key(Key::CloseBracket)],
    ),
    row(
        Command::AlignCursors,
        Group::Look,
        "Align B with A",
        "Move the other trace so that what it shows at cursor B comes to cursor A",
        &[],
    ),
    row(
        Command::AlignStarts,
        Group::Look,
        "Align the starts",
        "Put the first events of both traces at one place",
        &[],
    ),
    row(Command::CloseOther, Group::Look, "Close the other trace", "Show one trace again", &[]),
    row(
        Command::Back,
        Group::Go,
        "Back",
        "Return to the previous view",
        &[alt(Key::ArrowLeft), ctrl(Key::OpenBracket)],
    ),
    row(
        Command::Forward,
        Group::Go,
        "Forward",
        "Return to the view that Back left",
        &[alt(Key::ArrowRight), ctrl(Key::CloseBracket)],
    ),
    row(
        Command::NextChange,
        Group::Go,
        "Next change",
        "Select the next change of the selected entry",
        &[key(Key::Period)],
    ),
    row(
        Command::PrevChange,
        Group::Go,
        "Previous change",
        "Select the change of the selected entry before this one",
        &[key(Key::Comma)],
    ),
    row(
        Command::NextEvent,
        Group::Go,
        "Next event",
        "Select the next row of the event table",
        &[key(Key::J)],
    ),
    row(
        Command::PrevEvent,
        Group::Go,
        "Previous event",
        "Select the row above in the event table",
        &[key(Key::K)],
    ),
    row(Command::NextPhase, Group::Go, "Next phase", "Show the next marked phase", &[key(Key::N)]),
    row(Command::PrevPhase, Group::Go, "Previous phase", "Show the previous marked phase", &[key(Key::P)]),
    row(
        Command::GoTo,
        Group::Go,
        "Go to…",
        "Type a time, a guest frame or an event to show",
        &[key(Key::G), ctrl(Key::G)],
    ),
    row(
        Command::Filter,
        Group::Go,
        "Filter events…",
        "Type an expression that selects the events of the table",
        &[key(Key::Slash), ctrl(Key::F)],
    ),
    row(
        Command::FindNext,
        Group::Go,
        "Find next",
        "Select the next event that passes the filter",
        &[key(Key::F3)],
    ),
    row(
        Command::FindPrev,
        Group::Go,
        "Find previous",
        "Select the event before that passes the filter",
        &[shift(Key::F3)],
    ),
    row(
        Command::Deselect,
        Group::Go,
        "Close or deselect",
        "Close what is open on top; if nothing is, drop the selection",
        &[key(Key::Escape)],
    ),
    row(
        Command::CursorA,
        Group::Go,
        "Set cursor A",
        "Put cursor A at the pointer, or at the selection",
        &[key(Key::Num1)],
    ),
    row(
        Command::CursorB,
        Group::Go,
        "Set cursor B",
        "Put cursor B at the pointer, or at the selection",
        &[key(Key::Num2)],
    ),
    row(Command::ClearCursors, Group::Go, "Remove cursors", "Remove cursors A and B", &[key(Key::Num0)]),
    row(
        Command::Play,
        Group::Go,
        "Play",
        "Let the selected moment move through the time in view, or halt it (Space, where nothing is followed)",
        &[shift(Key::Space)],
    ),
    row(
        Command::AddNote,
        Group::Go,
        "Add a note…",
        "Write a note on the moment at the pointer, or on the selected page",
        &[key(Key::M)],
    ),
    row(
        Command::NextSpace,
        Group::Go,
        "Next address space",
        "Show the next VM or address space",
        &[key(Key::V)],
    ),
    row(
        Command::Follow,
        Group::Live,
        "Follow the end",
        "Keep the newest events in view while a capture grows",
        &[key(Key::End)],
    ),
    row(
        Command::Pause,
        Group::Live,
        "Pause or go on",
        "Halt the view of a growing capture, or let it go on; reading goes on meanwhile. Else: play",
        &[key(Key::Space)],
    ),
    row(
        Command::Reconnect,
        Group::Live,
        "Reconnect",
        "Follow the same input again from its beginning, after it has ended",
        &[],
    ),
    row(Command::WindowAll, Group::Live, "Everything", "Follow the end with everything in view", &[]),
    row(Command::WindowSecond, Group::Live, "Last second", "Follow the end with one second in view", &[]),
    row(Command::WindowTen, Group::Live, "Last 10 seconds", "Follow the end with ten seconds in view", &[]),
    row(Command::WindowMinute, Group::Live, "Last minute", "Follow the end with one minute in view", &[]),
    row(
        Command::SecondMap,
        Group::Panels,
        "Second map",
        "Show another VM or address space below the map, on the same time axis",
        &[shift(Key::V)],
    ),
    row(
        Command::ToggleDetails,
        Group::Panels,
        "Details",
        "Show or hide the details of the selected entry",
        &[ctrl(Key::D)],
    ),
    row(
        Command::ToggleTables,
        Group::Panels,
        "Tables",
        "Show or hide the tables at the bottom",
        &[ctrl(Key::T)],
    ),
    row(
        Command::ToggleArea,
        Group::Panels,
        "States over time",
        "Show or hide the number of entries per state over time",
        &[],
    ),
    row(Command::ToggleFaults, Group::Panels, "Fault rates", "Show or hide the rows of faults per vCPU", &[]),
    row(
        Command::ToggleCauses,
        Group::Panels,
        "Causes",
        "Show or hide the rows of what changed many entries at once: invalidations, dirty logging, zap-alls",
        &[],
    ),
    row(Command::ToggleLegend, Group::Panels, "Legend", "Show or hide the legend", &[]),
    row(Command::TabEvents, Group::Panels, "Events table", "Show the events, one per row", &[alt(Key::Num1)]),
    row(
        Command::TabFindings,
        Group::Panels,
        "Findings",
        "Show what stands out, and the busiest pages",
        &[alt(Key::Num6)],
    ),
    row(
        Command::TabBetween,
        Group::Panels,
        "A to B",
        "Show what changed between the cursors",
        &[alt(Key::Num7)],
    ),
    row(
        Command::TabHuge,
        Group::Panels,
        "Huge pages",
        "Show as what each 2M or 1G range is mapped, its splits and merges, and the share of large pages",
        &[alt(Key::Num9)],
    ),
    row(
        Command::TabTree,
        Group::Panels,
        "Page tables",
        "Show the entries from the root to the selected page, and all entries of each table",
        &[alt(Key::Num8)],
    ),
    row(
        Command::TabStory,
        Group::Panels,
        "Life of the page",
        "Show what happened to the selected guest page",
        &[alt(Key::Num2)],
    ),
    row(
        Command::TabChanges,
        Group::Panels,
        "Spans of the page",
        "Show every span of every entry that covers the selected page",
        &[alt(Key::Num3)],
    ),
    row(
        Command::TabLayout,
        Group::Panels,
        "Layout",
        "Show what the bits mean in this trace, and where each constant came from",
        &[alt(Key::Num4)],
    ),
    row(
        Command::TabRecording,
        Group::Panels,
        "Recording",
        "Show host, files, losses and notes of this recording",
        &[alt(Key::Num5)],
    ),
    row(
        Command::TabNotes,
        Group::Panels,
        "Notes",
        "Show your notes on this trace, and where they are kept",
        &[alt(Key::Num0)],
    ),
    row(
        Command::ToggleClock,
        Group::Panels,
        "Trace clock",
        "Show moments on the trace's own clock, or since the first event",
        &[],
    ),
    always(row(
        Command::ThemeSystem,
        Group::Panels,
        "System colours",
        "Use the desktop's choice of dark or light",
        &[],
    )),
    always(row(Command::ThemeDark, Group::Panels, "Dark colours", "Use light ink on a dark page", &[])),
    always(row(Command::ThemeLight, Group::Panels, "Light colours", "Use dark ink on a light page", &[])),
    always(row(
        Command::Larger,
        Group::Panels,
        "Larger",
        "Make text and controls larger",
        &[ctrl(Key::Plus), ctrl(Key::Equals)],
    )),
    always(row(
        Command::Smaller,
        Group::Panels,
        "Smaller",
        "Make text and controls smaller",
        &[ctrl(Key::Minus)],
    )),
    always(row(
        Command::Palette,
        Group::Help,
        "Commands…",
        "Find any command by typing",
        &[ctrl(Key::P), ctrl_shift(Key::P)],
    )),
    always(row(
        Command::Help,
        Group::Help,
        "Keys",
        "Show all keys and what the mouse does",
        &[key(Key::Questionmark), key(Key::F1)],
    )),
];

/// Mouse actions and what they do, for the key help.
pub(crate) const MOUSE: &[(&str, &str)] = &[
    ("Wheel", "Zoom both axes at the pointer"),
    ("Ctrl + wheel", "Zoom time only"),
    ("Shift + wheel", "Zoom the GFN space only"),
    ("Alt + wheel", "Move through time"),
    ("Drag", "Move"),
    ("Shift + drag", "Zoom into a rectangle (right drag too)"),
    ("Click", "Select the entry under the pointer"),
    ("Double click", "Zoom into the span under the pointer"),
];

impl Command {
    /// The row of the command in [`TABLE`].
    pub(crate) fn spec(self) -> &'static Spec {
        // One without a row would show as the first.
        TABLE.iter().find(|s| s.command == self).unwrap_or(&TABLE[0])
    }
}
