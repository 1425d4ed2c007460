//! Dockerfile text to tree to LLB, with warnings.
