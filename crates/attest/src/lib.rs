//! Statements about a result: provenance, SBOM, in-toto envelopes.
#![forbid(unsafe_code)]
