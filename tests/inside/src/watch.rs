//! What inotify(7) tells of paths, as text: the events that programs ask for which wait for changes of their configuration.

use std::{fmt::Write, io, mem::MaybeUninit, path::Path};

use rustix::{
    fd::OwnedFd,
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
};

/// Those that say what happened.
const NAMES: [(ReadFlags, &str); 11] = [
    (ReadFlags::ATTRIB, "ATTRIB"),
    (ReadFlags::CREATE, "CREATE"),
    (ReadFlags::DELETE, "DELETE"),
    (ReadFlags::DELETE_SELF, "DELETE_SELF"),
    (ReadFlags::IGNORED, "IGNORED"),
    (ReadFlags::ISDIR, "ISDIR"),
    (ReadFlags::MODIFY, "MODIFY"),
    (ReadFlags::MOVED_FROM, "MOVED_FROM"),
    (ReadFlags::MOVED_TO, "MOVED_TO"),
    (ReadFlags::MOVE_SELF, "MOVE_SELF"),
    (ReadFlags::QUEUE_OVERFLOW, "QUEUE_OVERFLOW"),
];

/// See the module.
#[derive(Debug)]
pub struct Watcher(OwnedFd);

impl Watcher {
    /// Watches these from here on; where they are links, what these lead to.
    ///
    /// # Errors
    /// One is not there, or the user has all that it may have.
    pub fn of<P: AsRef<Path>>(paths: &[P]) -> io::Result<Watcher> {
        let watcher = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let change = WatchFlags::CREATE | WatchFlags::MOVE | WatchFlags::DELETE | WatchFlags::MODIFY;
        let own = WatchFlags::ATTRIB | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        for path in paths {
            inotify::add_watch(&watcher, path.as_ref(), change | own)?;
        }
        Ok(Watcher(watcher))
    }

    /// What has happened since it was asked last: the number of the path, from 1, what, and to which name in it.
    ///
    /// # Errors
    /// As read(2).
    pub fn seen(&self) -> io::Result<Vec<String>> {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.0, &mut space);
        let mut seen = Vec::new();
        loop {
            match events.next() {
                Ok(event) => {
                    let mut text = event.wd().to_string();
                    for (_, name) in NAMES.iter().filter(|(flag, _)| event.events().contains(*flag)) {
                        text.push(' ');
                        text.push_str(name);
                    }
                    if let Some(name) = event.file_name() {
                        let _ = write!(text, " {}", name.to_string_lossy());
                    }
                    seen.push(text);
                }
                Err(Errno::AGAIN) => return Ok(seen),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
