//! Reads C declarations as far as NVIDIA's headers need it: no preprocessor, no expressions.

use std::collections::HashMap;

use crate::error::{Context, Failure, Result};

/// One `PFN_` typedef: a function as one version of the API declares it.
#[derive(Debug, Clone)]
pub struct Declaration {
    /// `cuMemAlloc` of `PFN_cuMemAlloc_v3020`.
    pub base: String,
    /// 3020.
    pub version: u32,
    /// Empty, `_ptsz` or `_ptds`.
    pub suffix: String,
    /// One letter a parameter, see [`Types::letter`].
    pub shape: String,
}

/// The text with each comment replaced by a space.
pub fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    loop {
        match (rest.find("/*"), rest.find("//")) {
            (Some(block), line) if line.is_none_or(|line| block < line) => {
                out.push_str(&rest[..block]);
                out.push(' ');
                rest = rest[block..].find("*/").map_or("", |end| &rest[block + end + 2..]);
            }
            (_, Some(line)) => {
                out.push_str(&rest[..line]);
                rest = rest[line..].find('\n').map_or("", |end| &rest[line + end..]);
            }
            (_, None) => {
                out.push_str(rest);
                return out;
            }
        }
    }
}

/// Every `PFN_` typedef of a header.
pub fn declarations(text: &str, types: &Types) -> Result<Vec<Declaration>> {
    let mut found = Vec::new();
    for piece in text.split("PFN_").skip(1) {
        // `cuX_v1000)(params);`: the other uses of the prefix are aliases of these.
        let Some((name, rest)) = piece.split_once(')') else { continue };
        let Some(params) = rest.trim_start().strip_prefix('(') else { continue };
        let params = params.split_once(");").context(|| format!("PFN_{name} has no end"))?.0;
        let (suffix, name) = ["_ptsz", "_ptds"]
            .iter()
            .find_map(|suffix| Some((*suffix, name.strip_suffix(suffix)?)))
            .unwrap_or(("", name));
        let (base, version) = name.rsplit_once("_v").context(|| format!("PFN_{name} has no version"))?;
        let version = version.parse().context(|| format!("PFN_{name} has no version"))?;
        let shape = types.shape(params).context(|| format!("cannot read the parameters of PFN_{name}"))?;
        found.push(Declaration { base: base.into(), version, suffix: suffix.into(), shape });
    }
    Ok(found)
}

/// The functions that a header declares.
pub fn functions(text: &str) -> Vec<String> {
    let mut names: Vec<String> = text
        .split("CUresult CUDAAPI ")
        .skip(1)
        .filter_map(|piece| Some(piece.split_once('(')?.0.trim().to_owned()))
        .filter(|name| name.starts_with("cu"))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// `#define cuX cuY` and `#define cuX __CUDA_API_PTSZ(cuY)`: (cuX, ELF name).
pub fn renames(text: &str) -> Vec<(String, String)> {
    let per_thread = |word: &str| {
        let (kind, name) = word.strip_prefix("__CUDA_API_")?.split_once('(')?;
        Some(format!("{}_{}", name.strip_suffix(')')?, kind.to_lowercase()))
    };
    text.lines()
        .filter_map(|line| {
            let mut words =
                line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("define ")?.split_whitespace();
            let (from, to) = (words.next()?, words.next()?);
            let to = per_thread(to).unwrap_or_else(|| to.to_owned());
            (from.starts_with("cu") && to.starts_with("cu") && words.next().is_none())
                .then(|| (from.to_owned(), to))
        })
        .collect()
}

/// What the type names of cuda.h are in the calling convention of x86-64.
pub struct Types {
    letters: HashMap<String, char>,
}

impl Types {
    /// The types that `cuda.h` defines, and those of GL, EGL and VDPAU that its other headers use.
    pub fn of(cuda: &str) -> Self {
        let mut letters: HashMap<String, char> =
            BASIC.iter().map(|(name, letter)| ((*name).to_owned(), *letter)).collect();
        for piece in cuda.split("typedef ").skip(1) {
            if let Some((name, letter)) = typedef(piece, &letters) {
                letters.entry(name).or_insert(letter);
            }
        }
        Self { letters }
    }

    fn shape(&self, params: &str) -> Result<String> {
        let params = params.trim();
        if params.is_empty() || params == "void" {
            return Ok(String::new());
        }
        params.split(',').map(|param| self.letter(param)).collect()
    }

    /// `p` pointer, `o` handle, `b` `h` `i` `l` integers of 8, 16, 32 and 64 bits, `f` float, `s` structure by value. A handle
    /// travels as a pointer does, but one given for the other is a mistake that the compiler can find.
    fn letter(&self, param: &str) -> Result<char> {
        if param.contains(['*', '[']) {
            return Ok('p');
        }
        let words: Vec<&str> = param
            .split_whitespace()
            .filter(|word| !["const", "CUDAAPI", "struct", "enum"].contains(word))
            .collect();
        // `T name`, or only `T`.
        [words.len().saturating_sub(1), words.len()]
            .iter()
            .find_map(|count| self.letters.get(&words[..*count].join(" ")).copied())
            .ok_or_else(|| Failure::new(format!("unknown type in {param:?}")))
    }
}

/// Name and letter of one typedef, given those before it.
fn typedef(piece: &str, known: &HashMap<String, char>) -> Option<(String, char)> {
    let open = piece.find('{').unwrap_or(usize::MAX);
    let semicolon = piece.find(';')?;
    if open < semicolon {
        let letter = if piece.starts_with("enum") { 'i' } else { 's' };
        let after = &piece[closing(piece, open)?..];
        return Some((last_name(after.split_once(';')?.0)?, letter));
    }
    let body = &piece[..semicolon];
    if let Some((_, rest)) = body.split_once("(CUDA_CB *").or_else(|| body.split_once("(*")) {
        return Some((rest.split_once(')')?.0.trim().to_owned(), 'p'));
    }
    let name = last_name(body)?;
    if body.contains(['*', '[']) {
        // `typedef struct CUstream_st *CUstream`.
        let letter = if body.starts_with("struct ") && !body.contains('[') { 'o' } else { 'p' };
        return Some((name, letter));
    }
    let target = body.trim_end().strip_suffix(&name)?.trim();
    let letter = match target.split_once(' ') {
        Some(("struct", _)) => 's',
        Some(("enum", _)) => 'i',
        _ => *known.get(target)?,
    };
    Some((name, letter))
}

/// The place after the brace that closes the one at `open`.
fn closing(text: &str, open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, letter) in text[open..].char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.checked_sub(1)?,
            _ => continue,
        }
        if depth == 0 {
            return Some(open + at + 1);
        }
    }
    None
}

fn last_name(text: &str) -> Option<String> {
    let name = text
        .trim()
        .trim_end_matches(']')
        .rsplit(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

const BASIC: &[(&str, char)] = &[
    ("unsigned char", 'b'),
    ("char", 'b'),
    ("unsigned short", 'h'),
    ("int", 'i'),
    ("unsigned", 'i'),
    ("unsigned int", 'i'),
    ("uint32_t", 'i'),
    ("cuuint32_t", 'i'),
    ("size_t", 'l'),
    ("unsigned long long", 'l'),
    ("uint64_t", 'l'),
    ("cuuint64_t", 'l'),
    ("float", 'f'),
    ("CUdeviceptr_v2", 'l'),
    ("CUdeviceptr_v1", 'i'),
    // GL, EGL, VDPAU: their own headers are not in the wheel.
    ("GLuint", 'i'),
    ("GLenum", 'i'),
    ("HGPUNV", 'p'),
    ("CUGLDeviceList", 'i'),
    ("CUoutput_mode", 'i'),
    ("EGLint", 'i'),
    ("EGLStreamKHR", 'p'),
    ("EGLImageKHR", 'p'),
    ("EGLSyncKHR", 'p'),
    ("CUeglFrame_v1", 's'),
    ("VdpDevice", 'i'),
    ("VdpVideoSurface", 'i'),
    ("VdpOutputSurface", 'i'),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declaration_gives_its_parts() {
        let types = Types::of(
            "typedef struct CUstream_st *CUstream; typedef enum CUmode_enum { A = 1, B } CUmode;
             typedef struct CUipc_st { char reserved[64]; } CUipc_v1; typedef CUipc_v1 CUipc;
             typedef void (CUDA_CB *CUhostFn)(void *userData);",
        );
        let text =
            "typedef CUresult (CUDAAPI *PFN_cuX_v7000_ptsz)(CUdeviceptr_v2 d, const void *p, CUstream s,
             CUmode, CUipc handle, CUhostFn fn, unsigned char c);
             #define PFN_cuX  __API_TYPEDEF_PTSZ(PFN_cuX, 3020, 7000)";
        let found = declarations(&without_comments(text), &types).expect("readable");
        assert_eq!(found.len(), 1);
        let one = &found[0];
        assert_eq!((one.base.as_str(), one.version, one.suffix.as_str()), ("cuX", 7000, "_ptsz"));
        assert_eq!(one.shape, "lpoispb");
    }

    #[test]
    fn an_unknown_type_is_an_error_and_not_a_guess() {
        let text = "typedef CUresult (CUDAAPI *PFN_cuX_v1)(CUnew x);";
        assert!(declarations(text, &Types::of("")).is_err());
    }

    #[test]
    fn comments_go_and_renames_are_found() {
        assert_eq!(without_comments("a /* b // c */ d // e\nf"), "a   d \nf");
        let found = renames("#define cuA cuA_v2\n  #define cuB  __CUDA_API_PTSZ(cuB_v2)\n#define cuC 4\n");
        assert_eq!(found, [("cuA".into(), "cuA_v2".into()), ("cuB".into(), "cuB_v2_ptsz".into())]);
    }
}
