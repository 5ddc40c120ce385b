//! The fields of shadow-page events in text, as the kernel and as libtraceevent's kvm plugin print them.

use super::Texts;
use crate::schema::values::{Page, Role};
use crate::text::scan::Scan;

/// Reads access letters in any order; `None` if there is another letter.
fn access(word: &[u8], role: &mut Role) -> Option<()> {
    if !matches!(word.len(), 3 | 4) {
        return None;
    }
    role.r = word.len() == 3;
    for b in word {
        match b {
            b'r' => role.r = true,
            b'w' => role.w = true,
            b'u' => role.u = true,
            b'x' => role.x = true,
            b'-' => {}
            _ => return None,
        }
    }
    Some(())
}

/// Reads `sp gen 0 gfn 3 l3 8-byte q0 direct wux invalid nxe ad root 0 sync`, or up to 5.0 `… l3 pae q0 wux !nxe root 0 sync`.
fn kernel_page(s: &mut Scan<'_>) -> Option<Page> {
    let mut page = Page { role: Role { r: true, ..Role::default() }, ..Page::default() };
    s.key(b"sp ")?;
    let mut generation = None;
    if s.key(b"gen ").is_some() {
        generation = Some(s.word());
    }
    s.key(b"gfn ")?;
    page.gfn = Some(s.hex()?);
    s.blanks();
    let _ = s.lit(b"l");
    page.role.level = s.dec()? as u8;
    let mut wide = true;
    if s.key(b"8-byte").is_some() {
        page.role.gpte_bytes = Some(8);
    } else if s.key(b"4-byte").is_some() {
        page.role.gpte_bytes = Some(4);
    } else {
        wide = false;
        page.role.gpte_bytes = Some(if s.key(b"pae").is_some() { 8 } else { 4 });
    }
    // It is a decimal byte since 5.4, which is younger than `N-byte`, and a hexadecimal long before that.
    if let Some(g) = generation {
        let mut g = Scan(g);
        page.mmu_valid_gen = Some(if wide { g.dec()? } else { g.hex()? });
    }
    s.key(b"q")?;
    page.role.quadrant = s.dec()? as u8;
    page.role.direct = s.key(b"direct").is_some();
    if !wide && page.role.direct {
        page.role.gpte_bytes = None;
    }
    access(s.word(), &mut page.role)?;
    page.role.invalid = s.key(b"invalid").is_some();
    page.role.nxe = Some(s.key(b"!nxe").is_none());
    if page.role.nxe == Some(true) {
        s.key(b"nxe")?;
    }
    page.role.ad_disabled = s.key(b"!ad").is_some();
    let _ = s.key(b"ad");
    s.key(b"root ")?;
    page.root_count = s.int()? as i32;
    s.blanks();
    page.unsync = s.lit(b"unsync").is_some();
    if !page.unsync {
        s.lit(b"sync")?;
    }
    Some(page)
}

/// Reads the plugin's `1 q0 direct wux !pae nxe wp root 0 sync`. The plugin has the role layout of kernels before 5.1; its level, quadrant,
/// direct, access, invalid and nxe are right up to 7.1.
fn plugin_page(s: &mut Scan<'_>) -> Option<Page> {
    let mut page = Page { role: Role { r: true, ..Role::default() }, ..Page::default() };
    page.role.level = s.dec()? as u8;
    s.key(b"q")?;
    page.role.quadrant = s.dec()? as u8;
    page.role.direct = s.key(b"direct").is_some();
    access(s.word(), &mut page.role)?;
    loop {
        match s.word() {
            b"root" => break,
            b"invalid" => page.role.invalid = true,
            b"nxe" => page.role.nxe = Some(true),
            b"!nxe" => page.role.nxe = Some(false),
            b"" => return None,
            _ => {}
        }
    }
    page.root_count = s.int()? as i32;
    s.blanks();
    page.unsync = s.lit(b"unsync").is_some();
    Some(page)
}

/// Whether the text is what the plugin printed before it knew `cr4_pae`: `1/4 q3 direct --x !pge !nxe root 6 sync`. It splits the role word
/// as KVM did in its first years: the level in bits 4 to 7, bits 10 to 15 left out, direct and access in bits 16 to 19. In all kernels that are
/// known here these bits mean something else, and some that count are not printed.
fn has_old_role(mut s: Scan<'_>) -> bool {
    let role = |s: &mut Scan<'_>| {
        s.dec()?;
        s.lit(b"/")?;
        s.dec()?;
        s.key(b"q")?;
        s.until(b" root ")?;
        s.dec()
    };
    role(&mut s).is_some() && matches!(s.word(), b"sync" | b"unsync")
}

/// Reads a page in the kernel's form, or in the plugin's.
pub(in crate::schema) fn page(s: &mut Scan<'_>, cx: &mut Texts<'_>) -> Option<Page> {
    let mut k = *s;
    if let Some(p) = kernel_page(&mut k) {
        *s = k;
        return Some(p);
    }
    if has_old_role(*s) {
        cx.gaps.old_role += 1;
        return None;
    }
    let p = plugin_page(s)?;
    cx.gaps.page_gfn += 1;
    Some(p)
}

/// Reads a page and whether it is new. The kernel prints that at the end, the plugin at the start.
pub(in crate::schema) fn new_page(s: &mut Scan<'_>, cx: &mut Texts<'_>) -> Option<(Page, bool)> {
    let created = if s.key(b"new ").is_some() {
        true
    } else if s.key(b"existing ").is_some() {
        false
    } else {
        let page = kernel_page(s)?;
        let created = s.key(b"new").is_some();
        if !created {
            s.key(b"existing")?;
        }
        return Some((page, created));
    };
    s.key(b"sp ")?;
    s.key(b"gfn ")?;
    let gfn = s.hex()?;
    if has_old_role(*s) {
        cx.gaps.old_role += 1;
        return None;
    }
    let mut page = plugin_page(s)?;
    page.gfn = Some(gfn);
    Some((page, created))
}
