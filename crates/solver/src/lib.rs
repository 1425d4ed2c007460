//! Finds the result of a graph of vertices, running as little as it can.
