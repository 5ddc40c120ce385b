//! Keys of commands: how they are written, and which commands the keys of a frame ask for.

use egui::{Key, KeyboardShortcut};

use crate::command::{Command, Spec};
use crate::commands::TABLE;

/// A shortcut as text: `Ctrl+Shift+P`.
pub(crate) fn key_text(shortcut: KeyboardShortcut) -> String {
    let m = shortcut.modifiers;
    let mut out = String::new();
    for (on, name) in [(m.command || m.ctrl, "Ctrl+"), (m.alt, "Alt+"), (m.shift, "Shift+")] {
        if on {
            out.push_str(name);
        }
    }
    out.push_str(match shortcut.logical_key {
        Key::ArrowLeft => "Left",
        Key::ArrowRight => "Right",
        Key::ArrowUp => "Up",
        Key::ArrowDown => "Down",
        Key::Escape => "Esc",
        Key::Comma => ",",
        Key::Period => ".",
        Key::Slash => "/",
        Key::Questionmark => "?",
        Key::OpenBracket => "[",
        Key::CloseBracket => "]",
        Key::Plus => "+",
        Key::Equals => "=",
        Key::Minus => "-",
        k => k.name(),
    });
    out
}

/// All shortcuts of a command as text, as menus show them.
pub(crate) fn keys_text(spec: &Spec) -> String {
    spec.keys.iter().copied().map(key_text).collect::<Vec<_>>().join("  ")
}

/// The commands whose keys were pressed in this frame. Their key events are removed from the input; movement is left to the map.
pub(crate) fn pressed(input: &mut egui::InputState) -> Vec<Command> {
    let mut found = Vec::new();
    // Longer chords are looked for first, so that Ctrl+Shift+P is not taken for Ctrl+P.
    let mut rows: Vec<(&Spec, &KeyboardShortcut)> = TABLE
        .iter()
        .filter(|s| !s.command.is_movement())
        .flat_map(|s| s.keys.iter().map(move |k| (s, k)))
        .collect();
    rows.sort_by_key(|(_, k)| {
        let m = k.modifiers;
        std::cmp::Reverse(usize::from(m.command) + usize::from(m.shift) + usize::from(m.alt))
    });
    for (spec, shortcut) in rows {
        if consume(input, *shortcut) {
            found.push(spec.command);
        }
    }
    found
}

fn consume(input: &mut egui::InputState, shortcut: KeyboardShortcut) -> bool {
    // Punctuation needs Shift on some keyboards and not on others, so Shift is ignored for punctuation.
    let sign = matches!(
        shortcut.logical_key,
        Key::Questionmark
            | Key::Slash
            | Key::Comma
            | Key::Period
            | Key::Plus
            | Key::Equals
            | Key::OpenBracket
            | Key::CloseBracket
    );
    let want = shortcut.modifiers;
    let mut hit = false;
    input.events.retain(|e| {
        let egui::Event::Key { key, pressed: true, modifiers, .. } = e else { return true };
        let same = *key == shortcut.logical_key
            && modifiers.alt == want.alt
            && (modifiers.command || modifiers.ctrl) == want.command
            && (sign || modifiers.shift == want.shift);
        hit |= same;
        !same
    });
    hit
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// The variants of [`Command`], read from its source: one without a row would show as the first.
    fn variants() -> Vec<&'static str> {
        let text = include_str!("command.rs");
        let (_, variants) = text.split_once("pub(crate) enum Command {").expect("the commands");
        let (variants, _) = variants.split_once('}').expect("their end");
        variants.split(',').map(str::trim).filter(|v| !v.is_empty()).collect()
    }

    #[test]
    fn every_command_has_one_row_and_a_key_one_command() {
        let mut commands = HashSet::new();
        let mut keys = HashSet::new();
        let mut names = HashSet::new();
        for spec in TABLE {
            assert!(commands.insert(spec.command), "{:?} twice", spec.command);
            assert!(names.insert(spec.name), "{} twice", spec.name);
            assert!(!spec.help.is_empty() && !spec.help.ends_with('.'), "{}", spec.name);
            for k in spec.keys {
                assert!(keys.insert(key_text(*k)), "{} twice", key_text(*k));
            }
        }
        let rows: HashSet<String> = commands.iter().map(|c| format!("{c:?}")).collect();
        assert_eq!(rows, variants().into_iter().map(str::to_owned).collect());
        assert_eq!(Command::Help.spec().name, "Keys");
        assert_eq!(Command::Quit.spec().command, Command::Quit);
    }

    #[test]
    fn chords_are_written_as_people_do() {
        assert_eq!(keys_text(Command::Palette.spec()), "Ctrl+P  Ctrl+Shift+P");
        assert_eq!(keys_text(Command::Help.spec()), "?  F1");
    }
}
