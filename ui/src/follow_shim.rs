//! Stand-in until mmuscope-trace exports its Follower.

use std::path::Path;

use mmuscope_trace::{ReadOptions, Trace};

pub(crate) struct Follower;

impl Follower {
    pub(crate) fn open(path: &Path, o: &ReadOptions) -> Result<(Trace, Self), String> {
        Trace::load(&[path.to_path_buf()], o).map(|t| (t, Self)).map_err(|e| e.to_string())
    }
    pub(crate) fn stdin(o: &ReadOptions) -> Result<(Trace, Self), String> {
        Trace::load(&["-".into()], o).map(|t| (t, Self)).map_err(|e| e.to_string())
    }
    #[allow(clippy::unused_self)]
    pub(crate) fn poll(&mut self, _: &mut Trace) -> Result<usize, String> {
        Ok(0)
    }
    #[allow(clippy::unused_self)]
    pub(crate) fn finished(&self) -> bool {
        true
    }
}
