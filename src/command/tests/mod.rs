#![allow(clippy::unwrap_used)]

mod blocking;
mod keys;
mod learned;
mod lookup;
mod retry;
mod server;

use super::Spec;
use crate::resp::encode_request;

/// A request as a frame, from its words; `""` is an empty argument.
fn request(line: &str) -> Vec<u8> {
    let words: Vec<&[u8]> = line.split(' ').map(|word| if word == "\"\"" { b"" } else { word.as_bytes() }).collect();
    let mut frame = Vec::new();
    encode_request(&mut frame, &words);
    frame
}

/// The row of a request's command, its subcommand resolved.
fn spec_of(line: &str) -> &'static Spec {
    let name = line.split(' ').next().unwrap();
    super::lookup(name.as_bytes()).unwrap_or_else(|| panic!("no row for {name}")).resolve(&request(line))
}
