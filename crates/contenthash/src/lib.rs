//! The digest of a part of a directory tree: what COPY is cached by.
