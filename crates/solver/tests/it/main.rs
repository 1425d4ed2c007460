//! Tests of the solver from outside.

mod cases;
mod letting_go;
mod nested;
mod replay;
mod sim;
mod support;
mod wide;
