//! `nvmlReturn_t`, and the words for it. Source: nvml.h of CUDA 13.0.

use std::ffi::CStr;

use idm::ChannelError;
use vgpu_codes::Code;

/// Why a call gives nothing: never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NvmlError(pub u32);

pub type NvmlResult<T> = Result<T, NvmlError>;

macro_rules! errors {
    ($($number:literal $name:ident $words:literal;)*) => {
        impl NvmlError {
            $(#[allow(dead_code, reason = "the whole list")] pub const $name: Self = Self($number);)*
        }

        /// `nvmlErrorString`. The words are part of the interface: tools show and compare them.
        pub fn words(number: u32) -> &'static CStr {
            match number {
                0 => c"Success",
                $($number => $words,)*
                _ => c"Unknown Error",
            }
        }
    };
}

errors! {
    1 UNINITIALIZED c"Uninitialized";
    2 INVALID_ARGUMENT c"Invalid Argument";
    3 NOT_SUPPORTED c"Not Supported";
    4 NO_PERMISSION c"Insufficient Permissions";
    5 ALREADY_INITIALIZED c"Already Initialized";
    6 NOT_FOUND c"Not Found";
    7 INSUFFICIENT_SIZE c"Insufficient Size";
    8 INSUFFICIENT_POWER c"Insufficient External Power";
    9 DRIVER_NOT_LOADED c"Driver Not Loaded";
    10 TIMEOUT c"Timeout";
    11 IRQ_ISSUE c"Interrupt Request Issue";
    12 LIBRARY_NOT_FOUND c"NVML Shared Library Not Found";
    13 FUNCTION_NOT_FOUND c"Function Not Found";
    14 CORRUPTED_INFOROM c"Corrupted infoROM";
    15 GPU_IS_LOST c"GPU is lost";
    16 RESET_REQUIRED c"GPU requires reset";
    17 OPERATING_SYSTEM c"GPU access blocked by the operating system";
    18 LIB_RM_VERSION_MISMATCH c"Driver/library version mismatch";
    19 IN_USE c"In use by another client";
    20 MEMORY c"Insufficient Memory";
    21 NO_DATA c"No data";
    22 VGPU_ECC_NOT_SUPPORTED c"vGPU with ECC is not supported";
    23 INSUFFICIENT_RESOURCES c"Insufficient Resources";
    24 FREQ_NOT_SUPPORTED c"Requested frequency is not supported";
    25 ARGUMENT_VERSION_MISMATCH c"Argument version mismatch";
    26 DEPRECATED c"Deprecated";
    27 NOT_READY c"Not ready";
    28 GPU_NOT_FOUND c"No GPUs were found";
    29 INVALID_STATE c"Invalid state";
    30 RESET_TYPE_NOT_SUPPORTED c"Reset type is not supported";
    999 UNKNOWN c"Unknown Error";
}

impl NvmlError {
    /// What a program is told when its question got no answer.
    pub fn of(error: &ChannelError) -> Self {
        match error {
            ChannelError::System { .. } | ChannelError::PeerGone(_) => Self::DRIVER_NOT_LOADED,
            ChannelError::TimedOut { .. } => Self::TIMEOUT,
            ChannelError::PeerVersion { .. } | ChannelError::PeerMagic { .. } => {
                Self::LIB_RM_VERSION_MISMATCH
            }
            ChannelError::Refused { code, .. } => match Code::from_number(*code) {
                Some(Code::NoProxy | Code::NoDevice | Code::PeerGone) => Self::DRIVER_NOT_LOADED,
                Some(Code::NotGranted) => Self::NO_PERMISSION,
                Some(Code::LimitReached) => Self::INSUFFICIENT_RESOURCES,
                Some(Code::ProtocolVersion) => Self::LIB_RM_VERSION_MISMATCH,
                _ => Self::UNKNOWN,
            },
            _ => Self::UNKNOWN,
        }
    }

    /// What it means for a program that had a device before.
    pub fn later(self) -> Self {
        match self {
            Self::DRIVER_NOT_LOADED | Self::NO_PERMISSION => Self::GPU_IS_LOST,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use idm::Peer;

    use super::*;

    #[test]
    fn a_refusal_is_told_by_its_code() {
        let refused =
            |code: Code| NvmlError::of(&ChannelError::Refused { peer: Peer::Server, code: code as u16 });
        assert_eq!(refused(Code::NotGranted), NvmlError::NO_PERMISSION);
        assert_eq!(refused(Code::NotGranted).later(), NvmlError::GPU_IS_LOST);
        assert_eq!(refused(Code::LimitReached).later(), NvmlError::INSUFFICIENT_RESOURCES);
        assert_eq!(refused(Code::ProtocolVersion), NvmlError::LIB_RM_VERSION_MISMATCH);
        assert_eq!(refused(Code::WorkerFailed), NvmlError::UNKNOWN);
        assert_eq!(NvmlError::of(&ChannelError::PeerGone(Peer::Server)), NvmlError::DRIVER_NOT_LOADED);
    }

    #[test]
    fn every_number_has_words() {
        assert_eq!(words(0), c"Success");
        assert_eq!(words(7), c"Insufficient Size");
        assert_eq!(words(31), c"Unknown Error");
        assert_eq!(words(u32::MAX), c"Unknown Error");
    }
}
