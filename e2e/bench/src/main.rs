//! Load tools and the ceiling they are measured against.

fn main() {}
