//! `docs/cuda-coverage.md` is made here: which calls there are, how they are answered, and which tests name them. A supported
//! call that no test names is a failure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use vgpu_api::surface::{Group, group_of};
use vgpu_api::symbols::TABLE;

/// Calls that check what they are given and do nothing more, and why that is right.
const NO_OPS: &[(&str, &str)] = &[
    ("cuCtxResetPersistingL2Cache", "a hint: lines of the second-level cache age by themselves"),
    ("cuCtxSetCacheConfig", "a hint that devices of the last ten years don't need"),
    ("cuCtxSetSharedMemConfig", "banks have four bytes on devices of the last ten years"),
    (
        "cuDeviceRegisterAsyncNotification",
        "the only notice that CUDA has is of memory over the budget, which is refused here",
    ),
    ("cuFuncLoad", "a function is loaded with its image"),
    ("cuFuncSetCacheConfig", "as cuCtxSetCacheConfig"),
    ("cuFuncSetSharedMemConfig", "as cuCtxSetSharedMemConfig"),
    ("cuKernelSetCacheConfig", "as cuCtxSetCacheConfig"),
    (
        "cuPointerSetAttribute",
        "nothing but streams of this process reaches the memory, and they have an order",
    ),
    ("cuProfilerStart", "there is no profiler to start"),
    ("cuProfilerStop", "there is no profiler to stop"),
    ("cuStreamAttachMemAsync", "host and device reach all managed memory always"),
];

/// Calls that are not supported, by the reason: how the names of a group begin, and why.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &["cuCheckpointProcess"],
        "named by a process of the node: what a guest's process has on the device is in its worker",
    ),
    (
        &["cuCoredump"],
        "a driver writes core dumps where it is loaded, which is the worker's sandbox: it has no files",
    ),
    (
        &[
            "cuDestroyExternal",
            "cuExternalMemory",
            "cuGraphAddExternal",
            "cuGraphExecExternal",
            "cuGraphExternal",
            "cuImportExternal",
            "cuSignalExternal",
            "cuWaitExternal",
        ],
        "memory and semaphores of Vulkan and other interfaces: the guest has no driver that makes them. Attribute 114 is 0",
    ),
    (&["cuDeviceGetNvSciSyncAttributes"], "NvSciSync is of vehicles and robots"),
    (
        &["cuEGL", "cuEventCreateFromEGLSync", "cuGL", "cuGraphics", "cuVDPAU", "cuWGL"],
        "graphics: the guest has no display driver to share with",
    ),
    (&["cuDeviceGetLuid"], "names a device to Windows; NVIDIA's driver says the same on Linux"),
    (
        &["cuFlushGPUDirectRDMAWrites"],
        "no other device writes into the GPU's memory here. Attributes 116 to 118 are 0",
    ),
    (
        &["cuLaunchCooperativeKernelMultiDevice"],
        "deprecated since CUDA 11.3, not passed on. Attribute 96 is 0",
    ),
    (
        &["cuMemBatchDecompressAsync"],
        "hardware that decompresses is not passed on. Attributes 136 and 137 are 0",
    ),
    (
        &["cuMemGetHandleForAddressRange"],
        "a dma-buf of the GPU's memory is for other devices of the node, of which the guest has none. Attributes 124 and 146 are 0",
    ),
    (&["cuMemMapArrayAsync"], "no arrays whose memory is mapped later. Attributes 112 and 121 are 0"),
    (
        &["cuMulticast"],
        "one address for the memory of several devices, which their switch makes: not passed on. Attribute 132 is 0",
    ),
    (&["cuProfilerInitialize"], "NVIDIA's driver says the same since CUDA 12"),
];

/// Tests that call everything, and look at nothing else.
const ONLY_CALLS: [&str; 2] = ["misuse", "gone"];

/// Sources of tests below `folder` of the repository that may name a call: the name of each, and its text.
fn sources(folder: &str, ending: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
    let (mut folders, mut found) = (vec![root], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.extend((!path.ends_with("support")).then_some(path));
            } else if path.extension().is_some_and(|has| has == ending) {
                // `main.rs` goes by its folder.
                let stem = path.file_stem().filter(|stem| *stem != "main").or(folder.file_name());
                let name = stem.unwrap().to_str().unwrap().to_owned();
                if !ONLY_CALLS.contains(&name.as_str()) {
                    found.push((name, fs::read_to_string(&path).unwrap()));
                }
            }
        }
    }
    found.sort();
    found
}

/// Whether the text names the call, in any of its forms.
fn names(text: &str, call: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let ends = |rest: &str| !rest.starts_with(is_word) || rest.starts_with("_v") || rest.starts_with("_pt");
    text.match_indices(call).any(|(at, _)| !text[..at].ends_with(is_word) && ends(&text[at + call.len()..]))
}

/// One row a base name: its supported forms, how they are answered, and which tests look at what it gives.
fn coverage() -> String {
    let mut bases: BTreeMap<&str, BTreeMap<&str, Option<&Group>>> = BTreeMap::new();
    for row in TABLE {
        bases.entry(row.base).or_default().insert(row.elf, group_of(row.elf));
    }
    let programs = sources("tests/cuda", "cu");
    let tests = sources("libvgpu/tests", "rs");
    let elf_names: BTreeSet<_> = TABLE.iter().map(|row| row.elf).collect();
    let supported = elf_names.iter().filter(|name| group_of(name).is_some()).count();
    let mut out = format!(
        "# CUDA coverage\n\nMade from `libvgpu/api/src/surface.rs` by `UPDATE=1 cargo test -p vgpu-api coverage`; a test compares.\n\n\
         libcuda of CUDA 13.0 has {} names of {} calls. All are exported; {supported} names are supported, the others return 801\n\
         (`CUDA_ERROR_NOT_SUPPORTED`).\n\n\
         *local*: answered in the guest. *cached*: by the worker once. *async*: queued, errors come with a later call (all at once\n\
         with `CUDA_LAUNCH_BLOCKING=1`). *sync*: waits for the worker. The subject is the file in `libvgpu/src/calls`.\n\
         Programs are those of `tests/cuda`, played on `soft`, and on a GPU natively and through vgpu; tests those of `libvgpu/tests`. Wrong\n\
         uses are in `tests/cuda/faults` and `libvgpu/tests/misuse.rs`, which calls every one.\n\n\
         | call | forms | class | subject | programs | tests |\n|---|---|---|---|---|---|\n",
        elf_names.len(),
        bases.len(),
    );
    let (mut missing, mut untested) = (Vec::new(), Vec::new());
    for (base, forms) in &bases {
        let groups: Vec<&Group> = forms.values().copied().flatten().collect();
        let Some(first) = groups.first() else {
            missing.push(*base);
            continue;
        };
        let listed: Vec<_> = forms
            .iter()
            .filter(|form| form.1.is_some())
            .map(|form| form.0.trim_start_matches(base))
            .collect();
        let listed: Vec<_> = listed.iter().map(|form| if form.is_empty() { "plain" } else { form }).collect();
        let of = if groups.len() == forms.len() { String::new() } else { format!(" (of {})", forms.len()) };
        let class = format!("{:?}", first.kind).to_lowercase();
        let of_those = |sources: &[(String, String)]| {
            let named: BTreeSet<_> = sources
                .iter()
                .filter(|source| names(&source.1, base))
                .map(|source| source.0.as_str())
                .collect();
            named.into_iter().collect::<Vec<_>>().join(" ")
        };
        let (by_programs, by_tests) = (of_those(&programs), of_those(&tests));
        if by_programs.is_empty() && by_tests.is_empty() {
            untested.push(*base);
        }
        let _ = writeln!(
            out,
            "| {base} | {}{of} | {class} | {} | {by_programs} | {by_tests} |",
            listed.join(" "),
            first.subject
        );
    }
    assert!(untested.is_empty(), "no test looks at what these give: {untested:?}");
    let _ = write!(out, "\n## Calls that do nothing but check: {}\n\n", NO_OPS.len());
    for (call, reason) in NO_OPS {
        assert!(bases.contains_key(call), "{call} is no call");
        let _ = writeln!(out, "* {call}: {reason}.");
    }
    let _ = write!(out, "\n## Not supported: {} calls\n\n| calls | why |\n|---|---|\n", missing.len());
    for (beginnings, reason) in REFUSED {
        let begins = |call: &&str| beginnings.iter().any(|beginning| call.starts_with(beginning));
        let (of_group, rest): (Vec<_>, Vec<_>) = missing.into_iter().partition(begins);
        for beginning in *beginnings {
            assert!(
                of_group.iter().any(|call| call.starts_with(beginning)),
                "no call that is refused begins with {beginning}"
            );
        }
        let _ = writeln!(out, "| {} | {reason} |", of_group.join(" "));
        missing = rest;
    }
    assert!(missing.is_empty(), "no reason why these are not supported: {missing:?}");
    out
}

#[test]
fn the_coverage_table_is_up_to_date() {
    let place = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cuda-coverage.md");
    let table = coverage();
    if env::var_os("UPDATE").is_some() {
        fs::write(place, &table).unwrap();
    }
    let committed = fs::read_to_string(place).unwrap_or_default();
    assert!(committed == table, "docs/cuda-coverage.md: run UPDATE=1 cargo test -p vgpu-api coverage");
}
