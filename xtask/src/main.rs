//! Project automation: tidy, layers, code generation.

fn main() {}
