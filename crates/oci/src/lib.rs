//! Words of the image format: digest, descriptor, media type, platform, manifest,
//! index, config, diff ID, chain ID, image name. No I/O.
//!
//! Formats: OCI image-spec 1.1 and Docker's image manifest v2, schema 2.
#![forbid(unsafe_code)]

pub mod annotation;
mod chain;
mod descriptor;
mod digest;
pub mod go_json;
mod image_name;
mod manifest;
pub mod media_type;
mod platform;

pub use chain::{ChainId, DiffId, chain_id};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, Hasher, InvalidDigest};
pub use image_name::{ImageName, InvalidImageName};
pub use manifest::{Index, Manifest};
pub use platform::{InvalidPlatform, Platform};
