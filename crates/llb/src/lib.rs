//! Words of a build graph: definition, op, edge, and a builder to make them.
