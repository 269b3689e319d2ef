//! The command line: what the original's users type, as far as a pod may ask it.

/// What `-h` says.
pub const HELP: &str = "\
nvidia-smi of vgpu: shows a container its own GPU, memory and processes

  nvidia-smi                      a table
  nvidia-smi -L                   one line a GPU
  nvidia-smi -q                   all that is known
  nvidia-smi --query-gpu=FIELD,... --format=csv[,noheader][,nounits]
  nvidia-smi --query-compute-apps=FIELD,... --format=csv[,noheader][,nounits]
  nvidia-smi --help-query-gpu     the names of the fields
  -i ID                           only this GPU: its index, UUID or PCI address

What the zone is not told is N/A. Settings are refused: the GPU is not the pod's own.
";

/// Settings of the original, short and long.
const SETTINGS: &[&str] = &[
    "-pm",
    "--persistence-mode",
    "-e",
    "--ecc-config",
    "-p",
    "--reset-ecc-errors",
    "-c",
    "--compute-mode",
    "-r",
    "--gpu-reset",
    "-lgc",
    "--lock-gpu-clocks",
    "-rgc",
    "--reset-gpu-clocks",
    "-lmc",
    "--lock-memory-clocks",
    "-rmc",
    "--reset-memory-clocks",
    "-ac",
    "--applications-clocks",
    "-rac",
    "--reset-applications-clocks",
    "-pl",
    "--power-limit",
    "-am",
    "--accounting-mode",
    "-caa",
    "--clear-accounted-apps",
    "-mig",
    "--multi-instance-gpu",
    "-gtt",
    "--gpu-target-temp",
    "-dm",
    "--driver-model",
];
/// Commands of the original that watch or change what no zone is told.
const COMMANDS: &[&str] = &[
    "topo",
    "dmon",
    "pmon",
    "daemon",
    "replay",
    "drain",
    "nvlink",
    "clocks",
    "encodersessions",
    "fbcsessions",
    "vgpu",
    "mig",
    "boost-slider",
    "power-hint",
    "conf-compute",
    "power-smoothing",
    "power-profiles",
    "gpm",
    "c2c",
];
/// Exit codes. Source: nvidia-smi(1), "Return value".
const INVALID: u8 = 2;
const NOT_SUPPORTED: u8 = 3;
const NO_PERMISSION: u8 = 4;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub code: u8,
    pub text: String,
}

/// How values are separated and said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Csv {
    pub no_header: bool,
    pub no_units: bool,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Table,
    List,
    Query,
    Gpus(Vec<String>, Csv),
    Processes(Vec<String>, Csv),
}

/// The whole command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A text that needs no GPU.
    Say(&'static str),
    /// Of all devices, or of one.
    Show { what: What, of: Option<String> },
}

/// Reads the words behind the program's name.
///
/// # Errors
/// A setting, or a word that is not known.
pub fn parse(words: &[String]) -> Result<Request, Wrong> {
    let (mut what, mut of, mut csv) = (What::Table, None, None);
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        // `--long=value`, or the value is the next word.
        let (name, own) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let mut value =
            || own.or_else(|| words.next()).ok_or_else(|| invalid(&format!("{name} wants a value")));
        match name {
            "-h" | "--help" => return Ok(Request::Say(HELP)),
            "--version" => {
                return Ok(Request::Say(concat!("nvidia-smi of vgpu ", env!("CARGO_PKG_VERSION"), "\n")));
            }
            "--help-query-gpu" => return Ok(Request::Say(crate::show::GPU_FIELDS)),
            "-L" | "--list-gpus" => what = What::List,
            "-q" | "--query" => what = What::Query,
            "-i" | "--id" => of = Some(value()?.to_owned()),
            "--query-gpu" => what = What::Gpus(fields(value()?), Csv::default()),
            "--query-compute-apps" => what = What::Processes(fields(value()?), Csv::default()),
            "--format" => csv = Some(format(value()?)?),
            // Details of the original's -q: all there is is shown.
            "-d" | "--display" => drop(value()?),
            setting if SETTINGS.contains(&setting) => {
                let text = format!("nvidia-smi: {setting} changes the GPU, which is not this pod's own");
                return Err(Wrong { code: NO_PERMISSION, text });
            }
            command if COMMANDS.contains(&command) => {
                let text = format!("nvidia-smi: {command}: N/A in a pod");
                return Err(Wrong { code: NOT_SUPPORTED, text });
            }
            "-x" | "--xml-format" | "-l" | "--loop" | "-lms" | "--loop-ms" | "-f" | "--filename" => {
                let text = format!("nvidia-smi: {name}: N/A in this nvidia-smi");
                return Err(Wrong { code: NOT_SUPPORTED, text });
            }
            _ => return Err(invalid(&format!("{word:?} is not known"))),
        }
    }
    match (&mut what, csv) {
        (What::Gpus(_, how) | What::Processes(_, how), Some(csv)) => *how = csv,
        (What::Gpus(..) | What::Processes(..), None) => {
            return Err(invalid("a query of fields wants --format=csv"));
        }
        (_, Some(_)) => return Err(invalid("--format belongs to a query of fields")),
        (_, None) => {}
    }
    Ok(Request::Show { what, of })
}

fn fields(list: &str) -> Vec<String> {
    list.split(',').map(|field| field.trim().to_owned()).collect()
}

fn format(list: &str) -> Result<Csv, Wrong> {
    let (mut csv, mut is_csv) = (Csv::default(), false);
    for word in list.split(',').map(str::trim) {
        match word {
            "csv" => is_csv = true,
            "noheader" => csv.no_header = true,
            "nounits" => csv.no_units = true,
            other => return Err(invalid(&format!("--format is csv, noheader, nounits; not {other:?}"))),
        }
    }
    if is_csv { Ok(csv) } else { Err(invalid("--format wants csv")) }
}

fn invalid(why: &str) -> Wrong {
    Wrong { code: INVALID, text: format!("nvidia-smi: {why}; see nvidia-smi -h") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Request, Wrong> {
        parse(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    fn show(what: What, of: Option<&str>) -> Result<Request, Wrong> {
        Ok(Request::Show { what, of: of.map(String::from) })
    }

    #[test]
    fn what_people_and_scripts_type_is_understood() {
        assert_eq!(read(""), show(What::Table, None));
        assert_eq!(read("-L"), show(What::List, None));
        assert_eq!(read("-q -i 0 -d MEMORY"), show(What::Query, Some("0")));
        let fields = vec!["name".into(), "memory.total".into()];
        let bare = Csv { no_header: true, no_units: true };
        assert_eq!(
            read("--query-gpu=name,memory.total --format=csv,noheader,nounits --id=GPU-1"),
            show(What::Gpus(fields.clone(), bare), Some("GPU-1"))
        );
        assert_eq!(
            read("--format csv --query-gpu name,memory.total"),
            show(What::Gpus(fields, Csv::default()), None)
        );
        let pids = What::Processes(vec!["pid".into()], Csv { no_header: true, no_units: false });
        assert_eq!(read("--query-compute-apps=pid --format=csv,noheader"), show(pids, None));
        assert!(matches!(read("-h"), Ok(Request::Say(HELP))));
    }

    #[test]
    fn settings_are_refused_by_name_and_what_is_unknown_with_a_hint() {
        for (line, code, part) in [
            ("-pl 200", 4, "-pl"),
            ("--gpu-reset", 4, "--gpu-reset"),
            ("-mig 1", 4, "-mig"),
            ("topo -m", 3, "topo"),
            ("dmon", 3, "dmon"),
            ("-q -x", 3, "-x"),
            ("--frobnicate", 2, "--frobnicate"),
            ("-i", 2, "-i"),
            ("--query-gpu=name", 2, "--format"),
            ("--query-gpu=name --format=xml", 2, "xml"),
            ("--query-gpu=name --format=noheader", 2, "csv"),
            ("-L --format=csv", 2, "--format"),
        ] {
            let wrong = read(line).unwrap_err();
            assert!(wrong.code == code && wrong.text.contains(part), "{line}: {wrong:?}");
        }
    }
}
