//! MMUs that do not trace their zaps: shadow paging, the legacy direct MMU, the TDP MMU of 5.10.
//!
//! Such a kernel traces installs. Everything else must be ruled out before a value may still be called known: mmu_notifier
//! ranges (traced since 5.13), pages zapped or synchronised (traced), guests writing their own tables, dirty logging. The rules, and what
//! follows for the user, are in `docs/guide/certainty.md`.
//!
//! Read from the bottom up: `state` is what is kept, `shown` says which changes would be events of this trace, `stale` ends facts, `naming` and
//! `values` say which table and which value an event means. On these stand the rules: what an install makes known (`install`, `unguard`), and what
//! takes it away again (`notifiers`, `pages`, `sync`, `gone`, `linking`, `unseen`, `lost`). `boundary` is asked for every event.

mod boundary;
mod fresh;
mod gone;
mod install;
mod linking;
mod links;
mod live;
mod lost;
mod naming;
mod notifiers;
mod pages;
mod places;
mod probes;
mod ranges;
mod read;
pub(crate) mod shadow;
mod shown;
mod stale;
pub(crate) mod state;
mod sync;
mod unguard;
mod unseen;
mod values;
