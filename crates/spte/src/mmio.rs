//! How MMIO SPTEs store the memslot generation and the guest frame number, and how the kernel reads them back.
//!
//! The main types are [`Generation`] and [`GfnRule`]; a [`crate::Layout`] holds one of each. Storing and reading are separate because from
//! 5.1 to 5.9 they are not inverse to each other (kernel bugs), and a decoder that agrees with the kernel has to make the same mistakes.

/// One piece of the generation: its `width` bits from `generation_bit` up are stored at `spte_bit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Piece {
    /// The lowest bit in the SPTE, 0 to 63.
    pub spte_bit: u8,
    /// The lowest bit in the generation.
    pub generation_bit: u8,
    /// The number of bits; 0 for a piece that is not used.
    pub width: u8,
}

impl Piece {
    const fn mask(self) -> u64 {
        if self.width >= 64 { u64::MAX } else { (1 << self.width) - 1 }
    }

    const fn put(self, generation: u32) -> u64 {
        ((generation as u64 >> (self.generation_bit & 31)) & self.mask()) << (self.spte_bit & 63)
    }

    const fn get(self, raw: u64) -> u32 {
        (((raw >> (self.spte_bit & 63)) & self.mask()) << (self.generation_bit & 31)) as u32
    }
}

/// Where an MMIO SPTE keeps the memslot generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Generation {
    /// The pieces as the kernel stores them, the low one first.
    pub store: [Piece; 2],
    /// The pieces as the kernel reads them back.
    pub read: [Piece; 2],
    /// The bits that the kernel clears before reading (up to 5.5 the MMIO mask).
    pub clear: u64,
}

impl Generation {
    /// The bits that are set when `generation` is stored.
    pub const fn put(&self, generation: u32) -> u64 {
        self.store[0].put(generation) | self.store[1].put(generation)
    }

    /// The generation that the kernel reads back from `raw`.
    #[inline]
    pub const fn get(&self, raw: u64) -> u32 {
        let raw = raw & !self.clear;
        self.read[0].get(raw) | self.read[1].get(raw)
    }

    /// All bits that storing a generation can set.
    pub const fn bits(&self) -> u64 {
        self.store[0].mask() << (self.store[0].spte_bit & 63)
            | self.store[1].mask() << (self.store[1].spte_bit & 63)
    }

    /// The bits of a generation that survive storing and reading back.
    pub const fn kept(&self) -> u32 {
        // A bit survives if storing it alone reads back as the same bit alone.
        let mut kept = 0;
        let mut n = 0;
        while n < 32 {
            let one = 1 << n;
            if self.get(self.put(one)) == one {
                kept |= one;
            }
            n += 1;
        }
        kept
    }

    /// Whether some bits are stored twice in place of the higher ones (kernels 5.1 to 5.9), so that the higher bits are lost.
    pub const fn is_buggy(&self) -> bool {
        let (a, b) = (self.store[0], self.store[1]);
        a.width > 0
            && b.width > 0
            && a.generation_bit < b.generation_bit + b.width
            && b.generation_bit < a.generation_bit + a.width
    }
}

/// How an MMIO SPTE stores its guest frame number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GfnRule {
    /// The address bits are stored as they are, and `clear` is removed when they are read (up to 4.18).
    Plain {
        /// The bits of generation and MMIO mask, which are cleared before the shift.
        clear: u64,
    },
    /// Since 4.19, the bits under `split` are set against L1TF, and the frame's own bits are stored five bits higher.
    Split {
        /// The kernel's `shadow_nonpresent_or_rsvd_mask`; 0 on hosts that need no mitigation.
        split: u64,
        /// The kernel's `shadow_nonpresent_or_rsvd_lower_gfn_mask`.
        lower: u64,
    },
}

impl GfnRule {
    /// The number of bits by which displaced frame bits are shifted (`SHADOW_NONPRESENT_OR_RSVD_MASK_LEN`).
    pub const SHIFT: u32 = 5;

    /// The bits that are set when `gfn` is stored.
    pub const fn put(&self, gfn: u64) -> u64 {
        let address = gfn << 12;
        match *self {
            GfnRule::Plain { .. } => address,
            GfnRule::Split { split, .. } => address | split | (address & split) << Self::SHIFT,
        }
    }

    /// The frame number that the kernel reads back.
    #[inline]
    pub const fn get(&self, raw: u64) -> u64 {
        match *self {
            GfnRule::Plain { clear } => (raw & !clear) >> 12,
            GfnRule::Split { split, lower } => (raw & lower | raw >> Self::SHIFT & split) >> 12,
        }
    }
}
