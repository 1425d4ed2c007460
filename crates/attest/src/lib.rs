//! Statements about a result: provenance, SBOM, in-toto envelopes.
//!
//! Values only: [`Options`] is what a client asked for, [`Provenance`] says how a result
//! was made and is written as one of two SLSA [`Version`]s, a [`Statement`] binds such a
//! predicate to what it speaks of. Who made what, and where statements go, is known above.
//!
//! ```
//! let asked = attest::requests(|visit| visit("attest:provenance", "mode=min,inline-only=true")).unwrap();
//! let options = attest::Options::parse(&asked["provenance"]).unwrap();
//! assert!(options.inline_only && options.mode == attest::Mode::Min);
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod environment;
mod error;
mod options;
mod package_url;
mod provenance;
mod sbom;
mod slsa;
mod statement;

pub use environment::Environment;
pub use error::{Error, Result};
pub use options::{Mode, Options, Version, requests};
pub use package_url::{PackageKind, package_url, package_url_in_layout};
pub use provenance::{
    BuildConfig, ConfigSource, DigestSet, Local, Material, Metadata, Named, NetworkFacts,
    Provenance, Request, SourceFile, SourceMap, Step, Uncaptured, digest_set, redacted,
};
pub use sbom::{CYCLONEDX, DEFAULT_GENERATOR, SPDX, Sbom, is_sbom, key};
pub use statement::{IN_TOTO, Statement, Subject};

/// No statement may be larger (W49).
pub const MAX_STATEMENT_SIZE: u64 = 40 << 20;

/// How every provenance predicate type begins: frontends may not bring such statements.
pub const SLSA_PREFIX: &str = "https://slsa.dev/provenance/";
