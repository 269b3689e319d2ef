//! placeholder
#[derive(Debug)]
pub struct Cuda;
