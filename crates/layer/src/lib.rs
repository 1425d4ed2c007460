//! A directory change to a layer tar and back: diff, apply, whiteouts, compression.
