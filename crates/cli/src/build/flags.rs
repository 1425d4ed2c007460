//! The flags of `kiln build`: those of `docker buildx build`.

use std::path::PathBuf;

use clap::Args;

/// Build an image from a Dockerfile
#[derive(Clone, Debug, Default, Args)]
#[command(
    after_help = "CONTEXT is a directory, a Git or HTTP URL, or `-` for an archive or a Dockerfile on standard input."
)]
pub struct BuildFlags {
    /// What COPY and ADD read from: a directory, a URL, or `-`
    #[arg(value_name = "CONTEXT", default_value = ".")]
    pub context: String,
    /// Name of the Dockerfile, `-` for standard input [default: CONTEXT/Dockerfile]
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub file: Option<String>,
    /// Name of the image (name:tag); may be given several times
    #[arg(short = 't', long = "tag", value_name = "NAME")]
    pub tag: Vec<String>,
    /// Stage to build instead of the last one
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Value of an ARG: NAME=VALUE, or NAME to take it from the environment
    #[arg(long = "build-arg", value_name = "ARG")]
    pub build_arg: Vec<String>,
    /// Another context: NAME=DIR, docker-image://…, oci-layout://…, https://…, or a Git URL
    #[arg(long = "build-context", value_name = "NAME=VALUE")]
    pub build_context: Vec<String>,
    /// Where cached steps come from: an image name, or type=registry|local|…,key=value
    #[arg(long = "cache-from", value_name = "CACHE")]
    pub cache_from: Vec<String>,
    /// Where cached steps go to: an image name, or type=registry|local|inline|…,key=value
    #[arg(long = "cache-to", value_name = "CACHE")]
    pub cache_to: Vec<String>,
    /// Run every step again
    #[arg(long = "no-cache")]
    pub no_cache: bool,
    /// Run the steps of these stages again
    #[arg(long = "no-cache-filter", value_name = "STAGE", value_delimiter = ',')]
    pub no_cache_filter: Vec<String>,
    /// Platform to build for (linux/arm64); several with commas
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub platform: Vec<String>,
    /// Where the result goes: a directory, `-` for a tar archive, or type=image|local|tar|oci|docker|registry,key=value
    #[arg(short = 'o', long = "output", value_name = "OUTPUT")]
    pub output: Vec<String>,
    /// Push the image; short for --output=type=registry
    #[arg(long)]
    pub push: bool,
    /// Load the image into Docker; short for --output=type=docker
    #[arg(long)]
    pub load: bool,
    /// A secret for RUN --mount=type=secret: id=NAME[,src=FILE|,env=VARIABLE]
    #[arg(long, value_name = "SECRET")]
    pub secret: Vec<String>,
    /// SSH agent socket or keys for RUN --mount=type=ssh: default, or ID[=SOCKET|KEY,…]
    #[arg(long, value_name = "SSH")]
    pub ssh: Vec<String>,
    /// Label of the image: KEY=VALUE
    #[arg(long, value_name = "LABEL")]
    pub label: Vec<String>,
    /// Annotation of the image: `[index,manifest:]KEY=VALUE`
    #[arg(long, value_name = "ANNOTATION")]
    pub annotation: Vec<String>,
    /// A name for an address inside RUN: HOST=IP
    #[arg(long = "add-host", value_name = "HOST=IP")]
    pub add_host: Vec<String>,
    /// Network of RUN: default, none or host
    #[arg(long, value_name = "MODE")]
    pub network: Option<String>,
    /// Let RUN reach the network through the daemon's proxy only, and tell what it got there
    #[arg(long = "proxy-network")]
    pub proxy_network: bool,
    /// Let the build use network.host, security.insecure or device[=NAME[,alias=OTHER]]
    #[arg(long, value_name = "ENTITLEMENT")]
    pub allow: Vec<String>,
    /// Size of /dev/shm in RUN (64m)
    #[arg(long = "shm-size", value_name = "SIZE")]
    pub shm_size: Option<String>,
    /// Limit of processes in RUN: nofile=1024:2048
    #[arg(long, value_name = "LIMIT")]
    pub ulimit: Vec<String>,
    /// Cgroup RUN is put below
    #[arg(long = "cgroup-parent", value_name = "CGROUP")]
    pub cgroup_parent: Option<String>,
    /// How progress is shown: auto, tty, plain, quiet or rawjson
    #[arg(long, value_name = "MODE", env = "BUILDKIT_PROGRESS")]
    pub progress: Option<String>,
    /// Print only the image's digest
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Write the image's digest to a file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// Write what is known of the result to a file, as JSON
    #[arg(long = "metadata-file", value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// Ask registries for newer images even if one is here
    #[arg(long)]
    pub pull: bool,
    /// What to do instead of building: build, check, outline or targets[,format=json]
    #[arg(long, value_name = "METHOD")]
    pub call: Option<String>,
    /// Short for --call=check
    #[arg(long)]
    pub check: bool,
    /// Attach a statement about how the image was made: true, false, mode=min|max,…
    #[arg(long, value_name = "ATTRS", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub provenance: Option<String>,
    /// Attach a list of what is in the image: true, false, generator=…
    #[arg(long, value_name = "ATTRS", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub sbom: Option<String>,
    /// Write images as an older BuildKit did: 10 (v0.13), 20 (v0.15) or 30 (v0.31, the newest)
    #[arg(long = "compatibility-version", value_name = "VERSION")]
    pub compatibility_version: Option<i64>,
    /// Attach a statement: type=provenance|sbom,key=value
    #[arg(long, value_name = "ATTRS")]
    pub attest: Vec<String>,
}
