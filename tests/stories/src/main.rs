//! End-to-end stories, run in Dom0.

fn main() {}
