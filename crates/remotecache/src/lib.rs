//! Cache records to and from elsewhere: registry, inline, local, GHA, S3, Azure.
