//! Tests of the solver from outside.

mod cases;
mod dice;
mod nested;
mod oracle;
mod replay;
mod sim;
mod support;
mod wide;
