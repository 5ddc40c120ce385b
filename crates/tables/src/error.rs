//! [`Error`], what the functions of this crate return when they fail.

/// Why a table could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Output could not be written.
    #[error("cannot write")]
    Write(#[from] std::io::Error),
    /// A CSV record could not be written.
    #[error("cannot write: {0}")]
    Csv(#[from] csv::Error),
    /// A Parquet or Arrow file could not be written.
    #[error(transparent)]
    Table(polars_error::PolarsError),
}

impl From<polars_error::PolarsError> for Error {
    fn from(e: polars_error::PolarsError) -> Self {
        match e {
            polars_error::PolarsError::IO { error, .. } => {
                Self::Write(std::io::Error::new(error.kind(), error))
            }
            e => Self::Table(e),
        }
    }
}

impl Error {
    /// Whether the reader of our output closed its end of the pipe (`… | head`), which ends the work and is no failure.
    pub fn is_broken_pipe(&self) -> bool {
        let kind = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
        match self {
            Self::Write(e) => kind(e),
            Self::Csv(e) => matches!(e.kind(), csv::ErrorKind::Io(e) if kind(e)),
            Self::Table(_) => false,
        }
    }
}
