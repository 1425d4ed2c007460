//! End to end: the real program, real registries, real clients, real containers.
//!
//! These tests need root. Those that need the tools of others take them from the
//! folder `tests/peers setup` makes; with `KILN_E2E_PEERS=0` they are skipped.

mod buildctl;
mod buildx;
mod caches;
mod daemon;
mod daemonless;
mod devices;
mod frontends;
mod frugal;
mod golden;
mod harness;
mod interrupted;
mod killed;
mod mounts;
mod networks;
mod others;
mod proxy;
mod prune;
mod rebuild;
mod registries;
mod statements;
mod tour;
mod why;
mod wrong;
