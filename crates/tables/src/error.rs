//! [`Error`], what the functions of this crate return when they fail.

/// Why a table could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Output could not be written.
    #[error("cannot write: {0}")]
    Write(#[from] std::io::Error),
    /// A CSV record could not be written.
    #[error("cannot write: {0}")]
    Csv(#[from] csv::Error),
    /// A Parquet or Arrow file could not be written.
    #[error("{0}")]
    Table(#[from] polars_error::PolarsError),
}

impl Error {
    /// Whether the reader of our output closed its end of the pipe (`… | head`), which ends the work and is no failure.
    pub fn is_broken_pipe(&self) -> bool {
        let kind = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
        match self {
            Self::Write(e) => kind(e),
            Self::Csv(e) => matches!(e.kind(), csv::ErrorKind::Io(e) if kind(e)),
            Self::Table(polars_error::PolarsError::IO { error, .. }) => kind(error),
            Self::Table(_) => false,
        }
    }
}
