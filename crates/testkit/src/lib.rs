//! A registry in memory, images from a seed, fakes for tests.
