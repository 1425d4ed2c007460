//! Where results go: image, OCI or Docker archive, tar, local folder.
