//! The table of layouts in the documentation must be the one that the layout files give.

use std::path::Path;

#[test]
fn the_table_of_layouts_is_in_step() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/layouts.md");
    let made = mmuscope_spte::describe::markdown(&mmuscope_spte::layouts::Library::new())
        .expect("the shipped files");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &made).expect("docs can be written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(made == kept, "docs/layouts.md is out of step: UPDATE=1 cargo test -p mmuscope-spte --test docs");
}
