//! A layout in words: the list of facts that `layout show`, `layout diff` and the table in the documentation print.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use crate::{
    AdRule, FixRule, Format, GfnRule, Layout, MaskName, PresentRule,
    explain::bit_list,
    mmio::{Generation, Piece},
};

/// A fact about a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The subject of the fact, with the same name in every layout.
    pub name: &'static str,
    /// What this layout has, in words.
    pub value: String,
}

fn mask_text(mask: u64) -> String {
    if mask == 0 { "none".to_string() } else { bit_list(mask) }
}

fn pieces(list: [Piece; 2]) -> String {
    let mut text = String::new();
    for piece in list.iter().rev().filter(|p| p.width > 0) {
        if !text.is_empty() {
            text += ", ";
        }
        let (b, g, w) = (piece.spte_bit, piece.generation_bit, piece.width - 1);
        text += &format!("{}:{} = g[{}:{}]", b + w, b, g + w, g);
    }
    text
}

fn generation_text(g: &Generation) -> String {
    let mut text = format!("bits {}", pieces(g.store));
    if g.is_buggy() {
        text += &format!("; kernel bug: only {:#x} of it is read back", g.get(g.put(u32::MAX)));
    }
    text
}

impl Layout {
    /// Everything that the layout defines, in a fixed order and with fixed names.
    pub fn facts(&self) -> Vec<Fact> {
        let m = &self.masks;
        let mut facts = Vec::with_capacity(48);
        let mut add = |name, value: String| facts.push(Fact { name, value });
        add("format", if self.format == Format::Ept { "EPT" } else { "x86 page table" }.to_string());
        add(
            "shadow-present",
            match self.present {
                PresentRule::NotSpecial => "not zero, not MMIO, not removed".to_string(),
                PresentRule::AnyOf(mask) if mask.is_power_of_two() => bit_list(mask),
                PresentRule::AnyOf(mask) => format!("any of {}", bit_list(mask)),
            },
        );
        add("zapped value", format!("{:#x}", self.zapped));
        add("removed value", self.removed.map_or("none".to_string(), |v| format!("{v:#x}")));
        add("address", mask_text(m.base_addr_mask));
        add("host-writable", mask_text(m.host_writable_mask));
        add("MMU-writable", mask_text(m.mmu_writable_mask));
        add("A/D type", mask_text(self.ad_type.bits()));
        add("saved permissions", mask_text(self.saved_mask()));
        add("accessed", mask_text(m.accessed_mask));
        add("dirty", mask_text(m.dirty_mask));
        add("user-execute", mask_text(m.xu_mask));
        add("suppress #VE", mask_text(self.suppress_ve));
        add(
            "MMIO mark",
            if m.enable_mmio_caching {
                format!("value & {:#x} == {:#x}", self.mmio_test_mask, self.mmio_test_value)
            } else {
                "no MMIO SPTEs".to_string()
            },
        );
        add("MMIO generation", generation_text(&self.generation));
        add("MMIO access", mask_text(self.mmio_access_read & 0xfff));
        add(
            "MMIO frame",
            match self.mmio_gfn {
                GfnRule::Plain { .. } => "in place".to_string(),
                GfnRule::Split { split: 0, lower } => format!("in place, {} kept", bit_list(lower)),
                GfnRule::Split { split, lower } => format!(
                    "{} in place, {} set (L1TF), what belongs there kept in {}",
                    bit_list(lower),
                    bit_list(split),
                    bit_list(split << GfnRule::SHIFT)
                ),
            },
        );
        add(
            "A/D reading",
            match self.ad_rule {
                AdRule::ByType => "hardware bits, unless the A/D type says disabled",
                AdRule::Bits => "the bits themselves, kept in software where hardware does not",
            }
            .to_string(),
        );
        add(
            "fast write fix",
            match self.fix_rule {
                FixRule::HostAndMmu => "host-writable and MMU-writable",
                FixRule::Mmu => "MMU-writable",
                FixRule::Never => "never",
            }
            .to_string(),
        );
        add("reserved, level 1", format!("{:#x}", self.reserved[0][1]));
        add("reserved, level 2 table", format!("{:#x}", self.reserved[0][2]));
        add("reserved, level 2 leaf", format!("{:#x}", self.reserved[1][2]));
        add("reserved, level 3 table", format!("{:#x}", self.reserved[0][3]));
        add("reserved, level 3 leaf", format!("{:#x}", self.reserved[1][3]));
        add("reserved, level 4", format!("{:#x}", self.reserved[0][4]));
        add("reserved, level 5", format!("{:#x}", self.reserved[0][5]));
        for &name in MaskName::ALL {
            add(name.name(), format!("{:#x}", m.get(name)));
        }
        facts
    }
}

/// The Markdown table of all layouts, which is the content of `docs/layouts.md`.
pub fn markdown(library: &crate::layouts::Library) -> Result<String, crate::Error> {
    let mut text = String::from(
        "# All layouts\n\n\
         Made from the files in `crates/spte/layouts/` by `mmuscope_spte::describe::markdown`; a test keeps it in step \
         (`UPDATE=1 cargo test -p mmuscope-spte --test docs` writes it anew). Masks that depend on the host are shown for an Intel host with 46 physical \
         address bits, or an AMD host with 48, without L1TF and without memory encryption.\n\n\
         `mmuscope layout show E10/ept` prints one of them with its bit diagrams, `mmuscope layout diff E09/ept E10/ept` what changed.\n\n\
         ## Eras\n\n| era | kernels | family | what begins with it |\n| --- | --- | --- | --- |\n",
    );
    let eras = library.eras()?;
    for era in eras {
        text += &format!("| {} | {} | {} | {} |\n", era.id, era.releases(), era.family, era.starts);
    }
    for mode in crate::Mode::ALL {
        text += &format!("\n## {}: {}\n\n", mode.name(), mode.words());
        text += "| layout | shadow-present | host-W, MMU-W | A/D type | saved | zapped | removed | MMIO test (mask, value) | generation |\n";
        text += "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
        for era in eras.iter().filter(|e| library.has(e.family, mode)) {
            let name = format!("{}/{}", era.id, mode.name());
            let layout = crate::LayoutSpec::named(&name)?.resolve_in(library)?.layout;
            text += &row(&name, &layout);
        }
    }
    Ok(text)
}

fn row(name: &str, layout: &Layout) -> String {
    let facts = layout.facts();
    let get = |name: &str| facts.iter().find(|f| f.name == name).map_or("", |f| f.value.as_str());
    let short = |name: &str| get(name).trim_start_matches("bits ").trim_start_matches("bit ").to_string();
    let present = match layout.present {
        PresentRule::NotSpecial => "by exclusion".to_string(),
        PresentRule::AnyOf(mask) => bit_list(mask),
    };
    let mmio = if layout.masks.enable_mmio_caching {
        format!("`{:#x}`, `{:#x}`", layout.mmio_test_mask, layout.mmio_test_value)
    } else {
        "–".to_string()
    };
    let generation = if layout.masks.enable_mmio_caching {
        let bug = if layout.generation.is_buggy() { " (bug)" } else { "" };
        format!("{}{bug}", pieces(layout.generation.store))
    } else {
        "–".to_string()
    };
    let removed = layout.removed.map_or("–".to_string(), |v| format!("`{v:#x}`"));
    format!(
        "| {name} | {present} | {}, {} | {} | {} | `{:#x}` | {removed} | {mmio} | {generation} |\n",
        short("host-writable"),
        short("MMU-writable"),
        short("A/D type"),
        short("saved permissions"),
        layout.zapped,
    )
}
