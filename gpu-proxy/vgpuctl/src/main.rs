//! Looks at a node.

fn main() {}
