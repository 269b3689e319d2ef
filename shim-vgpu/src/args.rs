//! containerd's command line: Go's flags (`-id ID`, `-id=ID`, `--id ID`) and one verb.

use std::ffi::OsString;

/// What containerd passed. Unknown flags are refused: a new one may change the meaning of the call.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Args {
    /// containerd's namespace.
    pub namespace: String,
    /// The container.
    pub id: String,
    /// containerd's gRPC socket; part of the hash that names ours.
    pub address: String,
    /// Not used: events go over ttrpc.
    pub publish_binary: String,
    /// The bundle; only `delete` has it, the others run in it.
    pub bundle: String,
    /// Our own, from `start` to the server: the configuration that the runtime handler names.
    pub config: String,
    /// Log at level debug.
    pub debug: bool,
    /// Print the version.
    pub version: bool,
    /// Print what this runtime can do.
    pub info: bool,
    /// `start`, `delete`, or empty: the server.
    pub verb: String,
}

impl Args {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    /// One sentence that names the flag.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Args, String> {
        let mut parsed = Args::default();
        let mut args = args.into_iter().map(|arg| arg.to_string_lossy().into_owned());
        while let Some(arg) = args.next() {
            let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
                if !parsed.verb.is_empty() {
                    return Err(format!("two verbs: {} and {arg}", parsed.verb));
                }
                parsed.verb = arg;
                continue;
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            if let Some(switch) = parsed.switch(name) {
                *switch = value.is_none_or(|value| value == "true" || value == "1");
            } else if let Some(field) = parsed.field(name) {
                *field =
                    value.or_else(|| args.next()).ok_or_else(|| format!("the flag -{name} needs a value"))?;
            } else {
                return Err(format!("the flag -{name} is not known"));
            }
        }
        Ok(parsed)
    }

    fn switch(&mut self, name: &str) -> Option<&mut bool> {
        match name {
            "debug" => Some(&mut self.debug),
            "v" => Some(&mut self.version),
            "info" => Some(&mut self.info),
            _ => None,
        }
    }

    fn field(&mut self, name: &str) -> Option<&mut String> {
        match name {
            "namespace" => Some(&mut self.namespace),
            "id" => Some(&mut self.id),
            "address" => Some(&mut self.address),
            "publish-binary" => Some(&mut self.publish_binary),
            "bundle" => Some(&mut self.bundle),
            "config" => Some(&mut self.config),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn containerds_own_line_is_understood() {
        let args = parse(
            "-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd -id=a1 -debug start",
        )
        .unwrap();
        assert_eq!(
            (args.namespace.as_str(), args.id.as_str(), args.verb.as_str()),
            ("k8s.io", "a1", "start")
        );
        assert!(args.debug && !args.version);
    }

    #[test]
    fn what_is_not_known_is_named() {
        assert_eq!(parse("-what"), Err("the flag -what is not known".into()));
        assert_eq!(parse("-id"), Err("the flag -id needs a value".into()));
        assert_eq!(parse("start delete"), Err("two verbs: start and delete".into()));
    }
}
