//! Names of source attributes and of well-known entries of a step's description
//! (features §4.2, L16).

/// How an image name is looked up: `default`, `pull` or `local`.
pub const IMAGE_RESOLVE_MODE: &str = "image.resolvemode";
/// What kind of record a pulled image makes.
pub const IMAGE_RECORD_TYPE: &str = "image.recordtype";
/// Take only so many layers of an image.
pub const IMAGE_LAYER_LIMIT: &str = "image.layerlimit";
/// The manifest digest an image must have.
pub const IMAGE_CHECKSUM: &str = "image.checksum";

/// The session an image layout is read from.
pub const OCI_SESSION: &str = "oci.session";
/// The content store of that session.
pub const OCI_STORE: &str = "oci.store";
/// Take only so many layers.
pub const OCI_LAYER_LIMIT: &str = "oci.layerlimit";

/// The session a directory is read from.
pub const LOCAL_SESSION: &str = "local.session";
/// Makes two otherwise equal local sources different.
pub const LOCAL_UNIQUE: &str = "local.unique";
/// JSON list of patterns: only these.
pub const LOCAL_INCLUDE: &str = "local.includepattern";
/// JSON list of paths: only these, and what their symlinks lead to.
pub const LOCAL_FOLLOW: &str = "local.followpaths";
/// JSON list of patterns: not these.
pub const LOCAL_EXCLUDE: &str = "local.excludepatterns";
/// Names the directory that is kept between builds.
pub const LOCAL_SHARED_KEY: &str = "local.sharedkeyhint";
/// `none` (send everything) or `metadata` (send what changed).
pub const LOCAL_DIFFER: &str = "local.differ";
/// Send names and sizes without content.
pub const LOCAL_METADATA_ONLY: &str = "local.metadatatransfer";
/// JSON list of patterns that are sent with content all the same.
pub const LOCAL_METADATA_EXCEPT: &str = "local.metadatatransferexclude";

/// Keep `.git`.
pub const GIT_KEEP_DIR: &str = "git.keepgitdir";
/// The address as the user wrote it.
pub const GIT_FULL_URL: &str = "git.fullurl";
/// Secret with the value of an Authorization header.
pub const GIT_AUTH_HEADER: &str = "git.authheadersecret";
/// Secret with a token.
pub const GIT_AUTH_TOKEN: &str = "git.authtokensecret";
/// Lines of a known_hosts file.
pub const GIT_KNOWN_HOSTS: &str = "git.knownsshhosts";
/// Which SSH agent to use.
pub const GIT_SSH_SOCKET: &str = "git.mountsshsock";
/// The commit it must be.
pub const GIT_CHECKSUM: &str = "git.checksum";
/// Leave submodules alone.
pub const GIT_SKIP_SUBMODULES: &str = "git.skipsubmodules";
/// Which times files get.
pub const GIT_MTIME: &str = "git.mtime";
/// Fetch by commit, not by name.
pub const GIT_FETCH_BY_COMMIT: &str = "git.fetchbycommit";
/// Give a bundle instead of a tree.
pub const GIT_BUNDLE: &str = "git.bundle";
/// Check a bundle out.
pub const GIT_CHECKOUT_BUNDLE: &str = "git.checkoutbundle";
/// The keys one of which must have signed.
pub const GIT_SIGNATURE_KEYS: &str = "git.sig.pubkey";
/// Refuse keys that have expired since they signed.
pub const GIT_SIGNATURE_REJECT_EXPIRED: &str = "git.sig.rejectexpired";
/// A tag must be signed, a commit does not do.
pub const GIT_SIGNATURE_REQUIRE_TAG: &str = "git.sig.requiresignedtag";
/// The commit must be signed, a tag does not do.
pub const GIT_SIGNATURE_IGNORE_TAG: &str = "git.sig.ignoresignedtag";
/// Ours: files can be written by group and others, as BuildKit had it before v0.15.
pub const GIT_OLD_MODES: &str = "kiln.git.oldmodes";

/// The digest a download must have.
pub const HTTP_CHECKSUM: &str = "http.checksum";
/// The name the file gets.
pub const HTTP_FILENAME: &str = "http.filename";
/// The mode it gets, octal.
pub const HTTP_PERM: &str = "http.perm";
/// The owner it gets.
pub const HTTP_UID: &str = "http.uid";
/// The group it gets.
pub const HTTP_GID: &str = "http.gid";
/// Secret with the value of an Authorization header.
pub const HTTP_AUTH_HEADER: &str = "http.authheadersecret";
/// Start of the names of request headers.
pub const HTTP_HEADER: &str = "http.header.";
/// The keys one of which must have signed.
pub const HTTP_SIGNATURE_KEYS: &str = "http.sig.pubkey";
/// The signature.
pub const HTTP_SIGNATURE: &str = "http.sig.signature";

/// The name of the input of a nested build that its definition is read from, and of the file
/// there if no other is named.
pub const BUILD_DEFINITION_INPUT: &str = "buildkit.llb.definition";
/// File that holds the definition of a nested build.
pub const BUILD_FILENAME: &str = "llbbuild.filename";
/// Ours: the name of what holds for a nested build. What a graph says here counts for nothing.
pub const BUILD_HOLDS: &str = "kiln.build.holds";

/// Description: the name a step is shown under.
pub const CUSTOM_NAME: &str = "llb.customname";
/// Description: the Dockerfile line of a step.
pub const DOCKERFILE_COMMAND: &str = "com.docker.dockerfile.v1.command";
