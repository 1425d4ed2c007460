//! Talking to registries: names, credentials, mirrors, fetch, push, referrers.
