//! [`Command`]: everything that a user can ask for. `commands::TABLE` says what each is called and does.

use egui::KeyboardShortcut;

/// Something a user can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Command {
    Open,
    Decode,
    Reload,
    SavePicture,
    SaveChanges,
    SaveTable,
    SaveSvg,
    SaveSession,
    AddNote,
    CopyImage,
    CopyLink,
    CopyValue,
    Quit,
    Fit,
    FitSelection,
    ZoomIn,
    ZoomOut,
    PanLeft,
    PanRight,
    PanUp,
    PanDown,
    Back,
    Forward,
    NextChange,
    PrevChange,
    NextEvent,
    PrevEvent,
    NextPhase,
    PrevPhase,
    GoTo,
    Filter,
    FindNext,
    FindPrev,
    Deselect,
    CursorA,
    CursorB,
    ClearCursors,
    NextSpace,
    ScopeView,
    ScopeCursors,
    ScopePage,
    ScopeVcpu,
    ScopeWiden,
    ScopeAll,
    Follow,
    Pause,
    Reconnect,
    WindowAll,
    WindowSecond,
    WindowTen,
    WindowMinute,
    ToggleDetails,
    ToggleTables,
    ToggleArea,
    ToggleFaults,
    ToggleLegend,
    ToggleCauses,
    TabEvents,
    TabFindings,
    TabBetween,
    TabHuge,
    TabTree,
    TabStory,
    TabChanges,
    TabLayout,
    TabRecording,
    TabNotes,
    NextColour,
    ToggleClock,
    Play,
    SecondMap,
    OpenBeside,
    SwapTraces,
    ShiftEarlier,
    ShiftLater,
    AlignCursors,
    AlignStarts,
    CloseOther,
    ThemeSystem,
    ThemeDark,
    ThemeLight,
    Larger,
    Smaller,
    Palette,
    Help,
}

/// The menu, and the part of the key help, in which a command is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    File,
    Look,
    Go,
    Live,
    Panels,
    Help,
}

impl Group {
    /// All groups in the order of the menu bar.
    pub(crate) const ALL: [Self; 6] =
        [Self::File, Self::Look, Self::Go, Self::Live, Self::Panels, Self::Help];

    /// Name of the menu.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::File => "File",
            Self::Look => "View",
            Self::Go => "Go",
            Self::Live => "Live",
            Self::Panels => "Panels",
            Self::Help => "Help",
        }
    }
}

/// One row of `commands::TABLE`: a command with everything that is shown about it.
pub(crate) struct Spec {
    /// The command that the row describes.
    pub(crate) command: Command,
    /// Menu in which the command is listed.
    pub(crate) group: Group,
    /// Name of the command in menus, palette and key help.
    pub(crate) name: &'static str,
    /// What the command does, in a sentence without a full stop.
    pub(crate) help: &'static str,
    /// Keys that run the command; may be empty.
    pub(crate) keys: &'static [KeyboardShortcut],
    /// Whether the command needs an open trace.
    pub(crate) needs_trace: bool,
}

impl Command {
    /// Whether the command is a movement that goes on while its key is down; the map handles those.
    pub(crate) fn is_movement(self) -> bool {
        matches!(
            self,
            Self::ZoomIn | Self::ZoomOut | Self::PanLeft | Self::PanRight | Self::PanUp | Self::PanDown
        )
    }
}
