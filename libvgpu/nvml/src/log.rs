//! Lines on stderr, only when `VGPU_LOG` is set: the process isn't ours.

use std::sync::OnceLock;

/// Whether the user asked for lines.
pub fn wanted() -> bool {
    static WANTED: OnceLock<bool> = OnceLock::new();
    *WANTED
        .get_or_init(|| std::env::var_os("VGPU_LOG").is_some_and(|value| !value.is_empty() && value != "0"))
}

/// One line. The text is only made when it is wanted.
macro_rules! say {
    ($($arg:tt)*) => {
        if $crate::log::wanted() {
            eprintln!("vgpu: {}", format_args!($($arg)*));
        }
    };
}
pub(crate) use say;
