//! Blobs on disk by digest: write, commit, read, list.
