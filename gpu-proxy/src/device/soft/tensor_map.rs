//! The software GPU has no tensor maps.

use super::Soft;
use crate::device::TensorMaps;

impl TensorMaps for Soft {}
