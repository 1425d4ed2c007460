//! Whole Dockerfiles through the frontend, with a bridge that knows a few files and
//! images.

mod compared;
mod errors;
mod golden;
mod hostile;
mod lint;
mod requests;
mod scans;
mod ways;
