//! Handles to filesystem results: lazy or unpacked, mutable or final; usage and prune.
