//! Tests of the solver from outside.

mod cases;
mod exported;
mod letting_go;
mod nested;
mod replay;
mod shown;
mod sim;
mod support;
mod wide;
