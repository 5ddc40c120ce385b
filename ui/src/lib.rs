//! The desktop viewer of mmuscope
