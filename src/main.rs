//! Arguments to a command; everything else is in the library.

fn main() {}
