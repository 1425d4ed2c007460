//! Transfers between two ends in memory, and against senders and receivers that lie.
