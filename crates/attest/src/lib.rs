//! Statements about a result: provenance, SBOM, in-toto envelopes.
