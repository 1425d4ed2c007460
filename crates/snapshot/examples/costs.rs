//! What beginning, committing and mounting cost here: `cargo run --release -p snapshot --example costs`.
//! What the machine could do: two directories, a rename and a mount are some 20 system calls.
#![expect(clippy::print_stdout, reason = "it is for people to read")]

use std::time::Instant;

use snapshot::{Overlay, Snapshotter};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let on = Overlay::open(dir.path())?;
    let mut layers = Vec::new();
    let began = Instant::now();
    for _ in 0..400 {
        layers.push(on.commit(on.new_layer()?)?);
    }
    println!("begin + commit without lowers: {:?}", began.elapsed() / 400);
    for count in [1, 10, 100, 400] {
        let began = Instant::now();
        for _ in 0..50 {
            drop(on.view(&layers[..count])?);
        }
        println!("view of {count} layers: {:?}", began.elapsed() / 50);
        let began = Instant::now();
        for _ in 0..50 {
            on.commit(on.begin(&layers[..count])?)?;
        }
        println!(
            "begin + commit on {count} layers: {:?}",
            began.elapsed() / 50
        );
    }
    Ok(())
}
