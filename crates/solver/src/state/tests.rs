//! The state alone, event by event.
