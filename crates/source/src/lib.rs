//! Where files come from: image, git, http, local folder, OCI layout.
