//! How a shim and a guest-init of different builds agree on a version.
//!
//! A node is upgraded while pods live: a new shim never meets an old guest-init of a living pod (the shim stays too), but a kept
//! guest image may be older or newer than the shim. Majors must be equal; of the minors the lower one is spoken.

use std::fmt;

/// The protocol of this source tree. The minor grows with each addition, the major when a field or call changes its meaning.
pub const CURRENT: Version = Version { major: 1, minor: 7 };

/// The first that makes a pod's network and knows the words of [`crate::pod`]. An earlier guest is sent neither.
pub const POD_SINCE: Version = Version { major: 1, minor: 2 };

/// The first that connects to ports of its loopback.
pub const FORWARD_SINCE: Version = Version { major: 1, minor: 3 };

/// The first that can be a pod without a sandbox container.
pub const SANDBOX_SINCE: Version = Version { major: 1, minor: 4 };

/// The first that has volumes which programs can watch ([`crate::pod::VOLUMES`]). An earlier one binds them from the share.
pub const VOLUMES_SINCE: Version = Version { major: 1, minor: 5 };

/// The first that uses another number of CPUs than its kernel started.
pub const CPUS_SINCE: Version = Version { major: 1, minor: 6 };

/// The first that sets the sysctls of a pod's network. An earlier one leaves them as its kernel has them.
pub const NETWORK_SYSCTLS_SINCE: Version = Version { major: 1, minor: 7 };

/// A version of the agent protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Incompatible with any other.
    pub major: u32,
    /// Additions: a higher one understands every lower one.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The two ends cannot speak to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incompatible {
    /// This end.
    pub ours: Version,
    /// The other end.
    pub theirs: Version,
}

impl fmt::Display for Incompatible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "this end speaks agent protocol {}, the other {}: the majors differ",
            self.ours, self.theirs
        )
    }
}

impl std::error::Error for Incompatible {}

/// The version that both ends speak from here on.
/// # Errors
/// [`Incompatible`] if the majors differ.
pub fn meet(ours: Version, theirs: Version) -> Result<Version, Incompatible> {
    if ours.major != theirs.major {
        return Err(Incompatible { ours, theirs });
    }
    Ok(Version { major: ours.major, minor: ours.minor.min(theirs.minor) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(major: u32, minor: u32) -> Version {
        Version { major, minor }
    }

    #[test]
    fn the_lower_minor_is_spoken_by_both_ends() {
        assert_eq!(meet(v(1, 4), v(1, 2)), Ok(v(1, 2)));
        assert_eq!(meet(v(1, 2), v(1, 4)), Ok(v(1, 2)));
    }

    #[test]
    fn another_major_is_refused_and_named() {
        let refused = meet(v(1, 9), v(2, 0)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "this end speaks agent protocol 1.9, the other 2.0: the majors differ"
        );
    }
}
