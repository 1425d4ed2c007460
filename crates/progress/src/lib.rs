//! Events of a running build, and the handle one sends them to.
