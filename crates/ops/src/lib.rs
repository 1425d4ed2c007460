//! How each op of a graph is done: exec, file, source, build, merge, diff; cache mounts.
