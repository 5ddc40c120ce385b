//! From what is known (kernel, paging mode, host, measured masks) to a [`Layout`], by the computation that the kernel does at module load.
//!
//! The main type is [`LayoutSpec`]; the command line and the replay fill it and call [`LayoutSpec::resolve`]. It never looks at SPTE values:
//! that is the business of [`crate::infer`].

use alloc::{borrow::ToOwned, format, string::String, vec, vec::Vec};

use crate::{
    AdRule, Era, Error, FixRule, Format, Host, HostSpec, Kernel, Known, Layout, MaskName, Masks, Mode, Name,
    PresentRule, Provenance, Traces, Vendor,
    bits::Field,
    eras,
    file::{File, Item, SCHEMA, Value},
    layouts::{self, Library},
    mmio,
};

mod rules;
mod settings;

use rules::{bad_mt_xwr, caching, computed_masks, generation, mask_follows_value, reserved, width};
use settings::{Settings, Terms, When};

/// What is known about the layout of some values; resolve it to decode.
#[derive(Clone, Debug, Default)]
pub struct LayoutSpec {
    /// The kernel release.
    pub kernel: Option<Known<Kernel>>,
    /// The era, where it is known better than the kernel release shows.
    pub era: Option<Known<String>>,
    /// The paging mode.
    pub mode: Option<Known<Mode>>,
    /// What is known about the host.
    pub host: HostSpec,
    /// Mask variables that were read from the kernel or given by the user.
    pub masks: Vec<(MaskName, Known<u64>)>,
    /// The user's own layout file, as its name and its text.
    pub file: Option<(String, String)>,
}

/// A layout, with the origin of each part of it.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The layout.
    pub layout: Layout,
    /// What the kernel traces.
    pub traces: Traces,
    /// The name of its era (`E10`), where it has one.
    pub era: Option<Known<&'static str>>,
    /// The kernel release, where known.
    pub kernel: Option<Known<Kernel>>,
    /// The origin of the paging mode.
    pub mode_from: Provenance,
    /// The host, with every part decided.
    pub host: Host,
    /// The origin of each mask, in the order of [`MaskName::ALL`].
    pub masks_from: Vec<Provenance>,
    /// Remarks about this layout that a reader should know, one sentence each.
    pub notes: Vec<String>,
}

impl Resolved {
    /// The origin of a mask.
    pub fn mask_from(&self, name: MaskName) -> Provenance {
        let at = MaskName::ALL.iter().position(|&m| m == name).unwrap_or(0);
        self.masks_from.get(at).copied().unwrap_or(Provenance::Assumed)
    }
}

impl LayoutSpec {
    /// Makes a spec for a shipped layout by its name: `E10/ept`, `C/npt`, `6.1/npt`, or an alias such as `E10/ept-ad`.
    pub fn named(name: &str) -> Result<LayoutSpec, Error> {
        let unknown = || Error::UnknownLayout(name.to_owned());
        let (kernel, mode) = name.split_once('/').ok_or_else(unknown)?;
        let mode = Mode::parse(mode).ok_or_else(unknown)?;
        let mut spec = LayoutSpec { mode: Some(Known::given(mode)), ..LayoutSpec::default() };
        let eras = eras::eras()?;
        if let Some(era) = eras
            .iter()
            .rev()
            .find(|e| e.id.eq_ignore_ascii_case(kernel) || e.family.eq_ignore_ascii_case(kernel))
        {
            spec.era = Some(Known::given(era.id.to_owned()));
        } else {
            spec.kernel = Some(Known::given(Kernel::parse(kernel).ok_or_else(unknown)?));
        }
        Ok(spec)
    }

    /// A shipped layout by name, for a host of which nothing else is known.
    pub fn find(name: &str) -> Result<Resolved, Error> {
        Self::named(name)?.resolve()
    }

    /// Sets the value of a kernel variable: a mask, or a variable from which a mask or a host fact follows (`shadow_phys_bits`, `sme_me_mask`,
    /// `kvm_ad_enabled` …). Returns `false` for a name that has no effect on layouts.
    pub fn set_variable(&mut self, name: &str, value: u64, from: Provenance) -> bool {
        let flag = value & 0xff != 0;
        match name {
            "shadow_phys_bits" => self.host.maxphyaddr = Some(Known { value: value as u8, from }),
            "kvm_ad_enabled" | "enable_ept_ad_bits" => {
                let mode = if flag { Mode::Ept } else { Mode::EptNoAd };
                self.mode.get_or_insert(Known { value: mode, from });
            }
            "sme_me_mask" => {
                self.host.sme = Some(Known { value: value != 0, from });
                if value != 0 {
                    self.host.c_bit = Some(Known { value: value.trailing_zeros() as u8, from });
                }
            }
            _ => {
                let Some(mask) = MaskName::parse(name) else { return false };
                self.masks.retain(|(m, _)| *m != mask);
                self.masks.push((mask, Known { value, from }));
            }
        }
        true
    }

    /// Reads lines `name value` or `name ok value` (values in hex, with or without 0x) and skips any other line. Returns the number of
    /// variables that were set.
    pub fn set_variables(&mut self, text: &str, from: Provenance) -> usize {
        let mut count = 0;
        for line in text.lines() {
            let mut words =
                line.split(|c: char| c.is_whitespace() || c == '=' || c == ':').filter(|w| !w.is_empty());
            let (Some(name), Some(mut value)) = (words.next(), words.next()) else { continue };
            if value == "ok" {
                let Some(next) = words.next() else { continue };
                value = next;
            }
            let value = match value {
                "Y" => Some(1),
                "N" => Some(0),
                hex => u64::from_str_radix(hex.strip_prefix("0x").unwrap_or(hex), 16).ok(),
            };
            if let Some(value) = value {
                count += usize::from(self.set_variable(name, value, from));
            }
        }
        count
    }

    /// The paging mode that the given masks prove, if they prove one.
    pub fn mode_of_masks(&self) -> Option<Mode> {
        let get = |name| self.masks.iter().find(|(m, _)| *m == name).map(|(_, k)| k.value);
        let (nx, x) = (get(MaskName::Nx), get(MaskName::X));
        match (nx, x, get(MaskName::AccTrack)) {
            (Some(0), Some(4), _) | (Some(0), _, Some(1..)) => {
                Some(if get(MaskName::Accessed) == Some(0) { Mode::EptNoAd } else { Mode::Ept })
            }
            _ => None,
        }
    }

    /// The newest era whose variables look like the given ones, if these show it.
    pub fn era_of_masks(&self) -> Option<&'static str> {
        let get = |name| self.masks.iter().find(|(m, _)| *m == name).map(|(_, k)| k.value);
        if let Some(host_writable) = get(MaskName::HostWritable) {
            let suppress = get(MaskName::Present).is_some_and(|p| p >> 63 != 0);
            return match host_writable {
                0x0020_0000_0000_0000 => Some("E14"),
                0x0200_0000_0000_0000 if suppress && get(MaskName::Accessed) == Some(0) => Some("E12"),
                0x0200_0000_0000_0000 if suppress => Some("E13"),
                0x0200_0000_0000_0000 => Some("E11"),
                0x400 => Some("E08"),
                0x200 if get(MaskName::Xu).is_some() => Some("E14"),
                _ => None,
            };
        }
        let value = get(MaskName::MmioValue)?;
        if value >> 52 & 3 == 3 {
            Some("E08")
        } else if value >> 62 & 1 == 1 {
            Some("E03")
        } else {
            None
        }
    }

    /// Makes the layout.
    pub fn resolve(&self) -> Result<Resolved, Error> {
        self.resolve_in(&Library::new())
    }

    /// Makes the layout out of files that `library` may have read already.
    pub fn resolve_in(&self, library: &Library) -> Result<Resolved, Error> {
        let mut notes = Vec::new();
        let eras = library.eras()?;
        let user_file = match &self.file {
            Some((name, text)) => Some(File::parse(name, text)?),
            None => None,
        };

        let mode_of_file = match &user_file {
            Some(file) => file_mode(file)?,
            None => None,
        };
        let mode = self
            .mode
            .or(mode_of_file.map(Known::given))
            .or_else(|| self.mode_of_masks().map(Known::inferred))
            .ok_or(Error::NoMode)?;

        let era = self.pick_era(user_file.as_ref(), eras, &mut notes)?;
        // The `since` tables of a file depend on the release: the given kernel, else the last release of the era.
        let kernel = self.kernel.map_or_else(
            || Kernel::new(eras[era.value].last.0, eras[era.value].last.1, None),
            |k| {
                if self.era.is_some() || matches!(k.value.distro, crate::Distro::RedHat { .. }) {
                    Kernel::new(eras[era.value].last.0, eras[era.value].last.1, None)
                } else {
                    k.value
                }
            },
        );

        let mut settings = Settings { list: [None; SCHEMA.len()], notes: Vec::new(), depth: 0 };
        let when = When { library, eras, era: era.value, kernel: &kernel };
        settings.add_file(library.traces()?, &when)?;
        let name;
        if let Some(file) = &user_file {
            settings.add_file(file, &when)?;
            name = Name::new(file.text("name").or(file.text("title")).unwrap_or(file.name));
        } else {
            let (family, note) = family_with(eras, era.value, mode.value)?;
            notes.extend(note);
            settings.add_file(library.file(family, mode.value.name())?, &when)?;
            name = Name::new(&format!("{}/{}", eras[era.value].id, mode.value.name()));
        }
        notes.append(&mut settings.notes);
        let host = self.host(mode.value, &settings, &mut notes)?;
        let (layout, masks_from) = self.build(name, mode.value, &settings, &host, &mut notes)?;
        Ok(Resolved {
            layout,
            traces: rules::traces(&settings)?,
            era: Some(Known { value: eras[era.value].id, from: era.from }),
            kernel: self.kernel,
            mode_from: mode.from,
            host,
            masks_from,
            notes,
        })
    }

    fn pick_era(
        &self,
        file: Option<&File<'_>>,
        eras: &[Era],
        notes: &mut Vec<String>,
    ) -> Result<Known<usize>, Error> {
        let by_id = |id: &str| eras.iter().position(|e| e.id.eq_ignore_ascii_case(id));
        if let Some(era) = &self.era {
            let at = by_id(&era.value).ok_or_else(|| Error::UnknownLayout(era.value.clone()))?;
            return Ok(Known { value: at, from: era.from });
        }
        if let Some(kernel) = self.kernel {
            return Ok(Known { value: eras::era_of(&kernel.value, eras, notes), from: kernel.from });
        }
        if let Some(file) = file {
            let base = file.text("extends").and_then(|e| e.split_once('/')).map(|(family, _)| family);
            if let Some(at) = base.or(file.text("family")).and_then(|f| {
                by_id(f).or_else(|| eras.iter().rposition(|e| e.family.eq_ignore_ascii_case(f)))
            }) {
                return Ok(Known::given(at));
            }
        }
        if let Some(at) = self.era_of_masks().and_then(by_id) {
            return Ok(Known::inferred(at));
        }
        notes.push("no kernel release given: the newest layout is assumed".into());
        Ok(Known::assumed(eras.len().saturating_sub(1)))
    }

    fn host(&self, mode: Mode, settings: &Settings<'_>, notes: &mut Vec<String>) -> Result<Host, Error> {
        let h = &self.host;
        let vendor = h.vendor.unwrap_or_else(|| {
            let amd = matches!(mode, Mode::Npt | Mode::NestedNpt)
                || mode.format() == Format::Legacy && (h.c_bit.is_some() || h.sme.is_some_and(|s| s.value));
            let sure = mode.format() == Format::Ept || amd;
            let vendor = if amd { Vendor::Amd } else { Vendor::Intel };
            if sure { Known::inferred(vendor) } else { Known::assumed(vendor) }
        });
        let usual = if vendor.value == Vendor::Amd { 48 } else { 46 };
        let limit = |k: Known<u8>| Known { value: k.value.min(52), ..k };
        let maxphyaddr = limit(h.maxphyaddr.or(h.phys_bits).unwrap_or(Known::assumed(usual)));
        let phys_bits = limit(
            h.phys_bits.unwrap_or(Known { from: Provenance::Inferred.min(maxphyaddr.from), ..maxphyaddr }),
        );
        let cache_bits = limit(
            h.cache_bits.unwrap_or(Known { from: Provenance::Inferred.min(maxphyaddr.from), ..maxphyaddr }),
        );
        let mut c_bit = h.c_bit;
        let sme = h.sme.unwrap_or(Known::assumed(false));
        if sme.value && c_bit.is_none() {
            c_bit = Some(Known::assumed(47));
            notes.push("SME is on but the C-bit position is not given: 47 is assumed".into());
        }
        let root = settings.number("host", "root_level")?.unwrap_or(4) as u8;
        let root_level = h.root_level.unwrap_or(Known::inferred(root));
        // Only a 32-bit kernel runs NPT with a PAE root: a 64-bit one takes its own number of levels.
        let host_64bit = if mode == Mode::Npt && root_level.value <= 3 {
            Known { value: false, from: root_level.from.min(Provenance::Inferred) }
        } else {
            Known::assumed(true)
        };
        Ok(Host {
            vendor,
            maxphyaddr,
            phys_bits,
            cache_bits,
            l1tf: h.l1tf.unwrap_or(Known::assumed(false)),
            c_bit,
            sme,
            mem_encrypt: h.mem_encrypt.unwrap_or(Known::inferred(c_bit.is_some())),
            exec_only: h.exec_only.unwrap_or(Known::assumed(true)),
            mmio_caching: h.mmio_caching.unwrap_or(Known::assumed(true)),
            pages_1g: h.pages_1g.unwrap_or(Known::assumed(true)),
            root_level,
            guest_nx: h.guest_nx.unwrap_or(Known::assumed(true)),
            host_64bit: h.host_64bit.unwrap_or(host_64bit),
        })
    }

    fn build(
        &self,
        name: Name,
        mode: Mode,
        s: &Settings<'_>,
        host: &Host,
        notes: &mut Vec<String>,
    ) -> Result<(Layout, Vec<Provenance>), Error> {
        let terms = Terms { host, width: width(s, host)? };
        let mask = |section: &str, key: &str| s.mask(section, key, &terms);
        let m = self.override_masks(computed_masks(s, host, &terms, notes)?, s, &terms, notes)?;
        let (mmio_test_mask, mmio_test_value) = match s.find("mmio", "test") {
            Some((_, Item { value: Value::Text("mask"), .. })) | None => (m.mmio_mask, m.vm_mmio_value),
            Some(_) => {
                let test = mask("mmio", "test")?;
                (test, test)
            }
        };
        let generation = generation(s, m.mmio_mask)?;
        let mmio_gfn = match s.word("mmio", "gfn", &["plain", "split"])? {
            "plain" => mmio::GfnRule::Plain { clear: generation.bits() | m.mmio_mask },
            _ => mmio::GfnRule::Split {
                split: m.nonpresent_or_rsvd_mask,
                lower: m.nonpresent_or_rsvd_lower_gfn_mask,
            },
        };
        let mmio_access_read = match s.word("mmio", "access_read", &["stored", "unmarked"])? {
            "stored" => m.mmio_access_mask,
            // Up to 5.3, the mask covers the low bits that are neither generation nor mark.
            _ => 0xfff & !(generation.bits() | m.mmio_mask),
        };
        let present = match s.find("bits", "present") {
            Some((_, Item { value: Value::Text("nonzero"), .. })) => PresentRule::NotSpecial,
            _ => PresentRule::AnyOf(mask("bits", "present")?),
        };
        let removed = match s.find("values", "removed") {
            Some((_, Item { value: Value::Text("none"), .. })) | None => None,
            Some(_) => Some(mask("values", "removed")?),
        };
        let layout = Layout {
            name,
            mode,
            format: mode.format(),
            root_level: host.root_level.value,
            masks: m,
            present,
            zapped: mask("values", "zapped")?,
            removed,
            large: mask("bits", "large")?,
            ad_type: Field::covering(mask("bits", "ad_type")?),
            saved_shift: s.number("bits", "saved_shift")?.unwrap_or(0).min(63) as u8,
            memtype: Field::covering(s.mask_or_zero("bits", "memtype", &terms)?),
            ignore_pat: s.mask_or_zero("bits", "ignore_pat", &terms)?,
            suppress_ve: s.mask_or_zero("bits", "suppress_ve", &terms)?,
            mmio_test_mask,
            mmio_test_value,
            mmio_access_read,
            generation,
            mmio_gfn,
            reserved: reserved(s, host, &m, terms.width)?,
            bad_mt_xwr: bad_mt_xwr(s, host)?,
            ad_rule: match s.word("rules", "accessed", &["type", "bits"])? {
                "type" => AdRule::ByType,
                _ => AdRule::Bits,
            },
            fix_rule: match s.word("rules", "fast_fix", &["host-and-mmu", "mmu", "never"])? {
                "host-and-mmu" => FixRule::HostAndMmu,
                "mmu" => FixRule::Mmu,
                _ => FixRule::Never,
            },
            host_entries_at_root: s.flag("bits", "host_entries_at_root")?,
            page_state: Field::covering(s.mask_or_zero("bits", "page_state", &terms)?),
        };
        Ok((layout, self.masks_from(mode, host)))
    }

    /// The masks with those that are known in place of the computed ones, and what follows from them.
    fn override_masks(
        &self,
        mut m: Masks,
        s: &Settings<'_>,
        terms: &Terms<'_>,
        notes: &mut Vec<String>,
    ) -> Result<Masks, Error> {
        let host = terms.host;
        let mask = |section: &str, key: &str| s.mask(section, key, terms);
        let overridden = |name: MaskName| self.masks.iter().any(|(n, _)| *n == name);
        for (name, known) in &self.masks {
            m.set(*name, known.value);
        }
        if overridden(MaskName::MmioValue) && mask_follows_value(s) && !overridden(MaskName::Mmio) {
            m.mmio_mask = m.mmio_value;
        }
        if overridden(MaskName::MeValue) && !overridden(MaskName::BaseAddr) {
            m.base_addr_mask &= !m.me_value;
        }
        if overridden(MaskName::BaseAddr) {
            m.base_addr_mask &= mask("bits", "address")?;
        }
        if !overridden(MaskName::VmMmioValue) {
            m.vm_mmio_value =
                if s.has("mmio", "vm_value") { mask("mmio", "vm_value")? } else { m.mmio_value };
        }
        if !overridden(MaskName::EnableMmioCaching) {
            let caching = caching(s)?;
            m.enable_mmio_caching = match caching {
                "always" => true,
                "never" => false,
                "narrow" => m.mmio_value != 0 && host.maxphyaddr.value < 52,
                _ => m.mmio_value != 0,
            };
            if caching == "narrow" && host.maxphyaddr.value >= 52 {
                notes.push(
                    "5.19.0 wrongly turned MMIO caching off on hosts with 52 physical address bits".into(),
                );
            }
        }
        Ok(m)
    }

    /// The origin of each mask, in the order of [`MaskName::ALL`].
    fn masks_from(&self, mode: Mode, host: &Host) -> Vec<Provenance> {
        let computed = host.maxphyaddr.from.min(host.phys_bits.from);
        let mut from = vec![Provenance::Inferred; MaskName::ALL.len()];
        let mut set_from = |name: MaskName, p: Provenance| {
            if let Some(at) = MaskName::ALL.iter().position(|&m| m == name) {
                from[at] = p;
            }
        };
        for name in [
            MaskName::NonpresentOrRsvd,
            MaskName::NonpresentOrRsvdLowerGfn,
            MaskName::MmioValue,
            MaskName::Mmio,
            MaskName::VmMmioValue,
        ] {
            if mode.format() == Format::Legacy
                || !matches!(name, MaskName::MmioValue | MaskName::Mmio | MaskName::VmMmioValue)
            {
                set_from(name, computed);
            }
        }

        for (name, known) in &self.masks {
            set_from(*name, known.from);
        }
        from
    }
}

/// The family from which a mode is read: the era's own, or for out-of-tree modes the nearest family that has it.
fn family_with(eras: &[Era], era: usize, mode: Mode) -> Result<(&'static str, Option<String>), Error> {
    let own = eras[era].family;
    if layouts::text(own, mode.name()).is_some() {
        return Ok((own, None));
    }
    let distance = |e: &Era| eras.iter().position(|x| x.id == e.id).unwrap_or(0).abs_diff(era);
    eras.iter()
        .filter(|e| layouts::text(e.family, mode.name()).is_some())
        .min_by_key(|e| distance(e))
        .map(|e| {
            let note = format!(
                "{} is not known on {} kernels: read as on family {} ({})",
                mode.words(),
                eras[era].releases(),
                e.family,
                e.releases()
            );
            (e.family, Some(note))
        })
        .ok_or_else(|| Error::UnknownLayout(format!("{own}/{}", mode.name())))
}

fn file_mode(file: &File<'_>) -> Result<Option<Mode>, Error> {
    let text = match file.top("paging") {
        Some(Item { value: Value::Text(text), line, .. }) => Some((*text, *line)),
        Some(item) => return Err(file.error(item.line, "paging takes a paging mode in quotes").into()),
        None => file.top("extends").and_then(|item| match item.value {
            Value::Text(text) => text.split_once('/').map(|(_, mode)| (mode, item.line)),
            _ => None,
        }),
    };
    let Some((text, line)) = text else { return Ok(None) };
    if let Some(mode) = Mode::parse(text) {
        return Ok(Some(mode));
    }
    let names: Vec<&str> = Mode::ALL.iter().map(|m| m.name()).collect();
    Err(file.error(line, format!("`{text}` is not a paging mode: there are {}", names.join(", "))).into())
}
