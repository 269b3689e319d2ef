//! Values of the declared types: what is nearly right, and now and then what is not.

use super::{Choices, Maker};
use crate::handle::{FunctionHandle, Handle, INDEXES, ImageHandle, kind};

/// From a handle to that of its place's next thing.
const GENERATION: u64 = INDEXES;
/// Handles of one kind that are in use at once.
const PLACES: usize = 8;
/// Sizes that mean something: nothing, elements, rows, pages, pieces, more than there is, what overflows.
const SIZES: &[u64] = &[
    0,
    1,
    2,
    3,
    4,
    8,
    12,
    16,
    32,
    64,
    100,
    128,
    256,
    512,
    1000,
    1024,
    4096,
    8192,
    65536,
    1 << 20,
    2 << 20,
    4 << 20,
    1 << 32,
    1 << 40,
    1 << 62,
    1 << 63,
    u64::MAX - 7,
    u64::MAX,
];
/// Distances from an address that was given: within, at its end, before it, around the end of all.
const BESIDE: &[u64] =
    &[0, 0, 0, 0, 1, 2, 4, 8, 64, 256, 4092, 4096, 65536, 2 << 20, u64::MAX, u64::MAX - 7, 1 << 63];
const SMALL: &[u32] = &[0, 0, 1, 1, 2, 3, 4, 5, 6, 8, 9, 16, 32, 64, 128, 0x7fff_ffff, 0x8000_0000, u32::MAX];
/// Blocks and threads: few, or more than any device takes. What is large and allowed would only take its time.
const SHAPES: &[u32] = &[1, 1, 1, 1, 1, 1, 2, 3, 32, 0, 0x8000_0000, u32::MAX];
const FORMATS: &[u32] = &[1, 2, 3, 8, 9, 10, 16, 32, 0, 99];

/// Code for uploads that are images.
const TEXT: &[u8] = b".version 7.0\n.target sm_70\n.address_size 64\n.visible .global .align 4 .u32 word = 7;\n\
    .global .texref picture;\n.global .surfref canvas;\n\
    .visible .entry nothing() { ret; }\n.visible .entry store(.param .u64 at) { .reg .b64 %rd<2>; ld.param.u64 %rd1, [at]; \
    st.global.u32 [%rd1], 1; ret; }\n";

/// The kinds that travel, and the number of one.
const KINDS: [&str; 12] = [
    "Stream",
    "Event",
    "Image",
    "Function",
    "Memory",
    "Pool",
    "GraphExec",
    "Array",
    "Mipmap",
    "Linker",
    "TexRef",
    "SurfRef",
];

fn raw(kind: &str, generation: u32, index: u64) -> u64 {
    match kind {
        "Stream" => Handle::<kind::Stream>::new(generation, index).raw(),
        "Event" => Handle::<kind::Event>::new(generation, index).raw(),
        "Image" => ImageHandle::new(generation, index).raw(),
        "Function" => FunctionHandle::of_image(ImageHandle::new(generation, index), 0).raw(),
        "Memory" => Handle::<kind::Memory>::new(generation, index).raw(),
        "Pool" => Handle::<kind::Pool>::new(generation, index).raw(),
        "GraphExec" => Handle::<kind::GraphExec>::new(generation, index).raw(),
        "Array" => Handle::<kind::Array>::new(generation, index).raw(),
        "Mipmap" => Handle::<kind::Mipmap>::new(generation, index).raw(),
        "Linker" => Handle::<kind::Linker>::new(generation, index).raw(),
        "TexRef" => Handle::<kind::TexRef>::new(generation, index).raw(),
        "SurfRef" => Handle::<kind::SurfRef>::new(generation, index).raw(),
        other => panic!("no kind of handles is called {other}"),
    }
}

impl<C: Choices> Maker<C> {
    pub(super) fn context(&mut self) -> u32 {
        self.choices.of(&[0, 1, 2, 64, 65, 66, 67, 68, 100, u32::MAX])
    }

    fn size(&mut self) -> u64 {
        match self.choices.below(32) {
            0 => self.choices.number(),
            1 => SIZES[self.choices.below(SIZES.len())],
            2..14 if !self.sizes.is_empty() => self.sizes[self.choices.below(self.sizes.len())],
            // Mostly what an allocation of these tests holds.
            _ => SIZES[self.choices.below(22)],
        }
    }

    fn address(&mut self) -> u64 {
        if !self.reserved.is_empty() && self.choices.below(8) < if self.is_about_mappings { 7 } else { 1 } {
            let known = self.choices.below(self.reserved.len());
            return self.reserved[known].wrapping_add(self.choices.of(&[
                0,
                0,
                0,
                2 << 20,
                4 << 20,
                4096,
                u64::MAX,
            ]));
        }
        match self.choices.below(32) {
            0 => self.choices.number(),
            1 => self.size(),
            _ if self.addresses.is_empty() => 0,
            _ => {
                let known = self.choices.below(self.addresses.len());
                self.addresses[known].wrapping_add(self.choices.of(BESIDE))
            }
        }
    }

    /// A handle that is there, mostly; else of the wrong kind, a generation beside it, of nothing.
    fn handle(&mut self, kind: &'static str) -> u64 {
        let of = if kind == "Function" { "Image" } else { kind };
        let alive = self.alive.get(of).map_or(&[][..], Vec::as_slice);
        let known = match alive.len() {
            0 => raw(of, 0, self.choices.below(PLACES) as u64),
            count => alive[self.choices.below(count)],
        };
        let known = match Handle::<kind::Image>::parse(known) {
            Some(image) if kind == "Function" => {
                FunctionHandle::of_image(image, self.choices.of(&[0, 0, 1, 2])).raw()
            }
            _ => known,
        };
        match self.choices.below(64) {
            0 => self.choices.number(),
            1 => {
                let (other, place) = (self.choices.of(&KINDS), self.choices.below(PLACES) as u64);
                raw(other, 0, place)
            }
            2 => known.wrapping_sub(GENERATION),
            3 => known.wrapping_add(GENERATION),
            4 => raw(kind, 0, self.choices.number()),
            _ => known,
        }
    }

    /// A handle for something new: of a place that is free, mostly.
    fn new_handle(&mut self, kind: &'static str) -> u64 {
        let start = self.choices.below(PLACES);
        let is_free = self.choices.below(16) > 0;
        let alive = self.alive.get(kind).map_or(&[][..], Vec::as_slice);
        let taken = |place: &usize| alive.iter().any(|known| known % INDEXES == *place as u64);
        let free = (start..start + PLACES).map(|place| place % PLACES).find(|place| is_free && !taken(place));
        self.generation += 1;
        raw(kind, self.generation, free.unwrap_or(start) as u64)
    }

    /// No form at all: words that mean something, of the widths that calls have.
    pub(super) fn words(&mut self, out: &mut Vec<u8>) {
        for _ in 0..self.choices.below(9) {
            let kind = self.choices.of(&KINDS);
            let value = match self.choices.below(4) {
                0 => self.choices.number(),
                1 => self.handle(kind),
                2 => self.address(),
                _ => self.size(),
            };
            out.extend_from_slice(&value.to_le_bytes()[..self.choices.of(&[1, 4, 4, 8, 8, 8])]);
        }
    }

    /// Nodes of a graph, code, or rubbish: whole, in one piece.
    pub(super) fn upload(&mut self, out: &mut Vec<u8>) {
        let mut bytes = Vec::new();
        match self.choices.below(4) {
            0 => bytes.extend_from_slice(TEXT),
            1 => self.bytes(&mut bytes),
            _ => (0..self.choices.below(4)).for_each(|_| self.value("node", "GraphNode", &mut bytes)),
        }
        let (total, offset) = match self.choices.below(16) {
            0 => (self.size(), self.size()),
            _ => (bytes.len() as u64, 0),
        };
        let upload = u32::try_from(self.choices.below(3)).unwrap_or(0);
        self.uploaded = Some(upload);
        out.extend(upload.to_le_bytes());
        out.extend(total.to_le_bytes());
        out.extend(offset.to_le_bytes());
        counted(&bytes, out);
    }

    fn bytes(&mut self, out: &mut Vec<u8>) {
        let count = self.choices.of(&[0usize, 1, 4, 8, 12, 16, 64, 64, 200]);
        out.extend((0..count).map(|_| 0).map(|zero: u8| zero | self.choices.byte()));
    }

    /// A value of a declared type. Its name says what it is where the type is only a number.
    pub(super) fn value(&mut self, name: &str, of: &'static str, out: &mut Vec<u8>) {
        let of = of.trim().trim_end_matches("<'_>");
        if let Some(kind) = of.strip_prefix("NewHandle<kind::").and_then(|rest| rest.strip_suffix('>')) {
            return out.extend(self.new_handle(kind).to_le_bytes());
        }
        if let Some(kind) = of.strip_prefix("GoneHandle<kind::").and_then(|rest| rest.strip_suffix('>')) {
            return out.extend(self.handle(kind).to_le_bytes());
        }
        if let Some(kind) = of.strip_suffix("Handle").filter(|kind| KINDS.contains(kind)) {
            return out.extend(self.handle(kind).to_le_bytes());
        }
        if let Some(of) = of.strip_prefix("Vec<").and_then(|rest| rest.strip_suffix('>')) {
            let count = self.choices.below(4);
            out.extend(u32::try_from(count).unwrap_or(0).to_le_bytes());
            return (0..count).for_each(|_| self.value(name, of, out));
        }
        if let Some(of) = of.strip_prefix("0|1") {
            out.push(u8::from(self.choices.below(2) == 1));
            if out.last() == Some(&1) {
                self.value(name, of, out);
            }
            return;
        }
        match of {
            "u8" => out.push(self.choices.of(&[0, 0, 0, 1, 2, 255])),
            "bool" => out.push(u8::try_from(self.choices.below(2)).unwrap_or(0)),
            "u32" | "i32" => out.extend(self.small(name).to_le_bytes()),
            "u64" if name == "flags" && self.choices.below(8) > 0 => out.extend([0; 8]),
            "u64" if self.is_about_mappings && self.choices.below(8) > 0 => {
                out.extend(self.choices.of(&[2u64 << 20, 2 << 20, 4 << 20]).to_le_bytes());
            }
            "u64" | "i64" => out.extend(self.size().to_le_bytes()),
            "f32" => {
                out.extend(self.choices.of(&[0.0f32, 0.5, 1.0, -1.0, f32::NAN, f32::INFINITY]).to_le_bytes())
            }
            "[u32; 3]" if name == "grid" || name == "block" => {
                (0..3).for_each(|_| out.extend(self.choices.of(SHAPES).to_le_bytes()));
            }
            "[u8; 16]" => (0..16).for_each(|_| out.push(self.choices.byte())),
            "String" if name == "symbol" => {
                counted(
                    self.choices.of(&[&b"picture"[..], b"picture", b"canvas", b"canvas", b"word", b""]),
                    out,
                );
            }
            "&[u8]" | "bytes" | "String" => {
                let mut bytes = Vec::new();
                if name == "params" {
                    bytes.extend(self.address().to_le_bytes());
                    bytes.truncate(8 * self.choices.below(2));
                } else {
                    self.bytes(&mut bytes);
                }
                if of == "String" {
                    bytes.iter_mut().for_each(|byte| *byte &= 0x7f);
                }
                counted(&bytes, out);
            }
            // Attributes of a launch: a number and 64 bytes each.
            "68*" => {
                let mut bytes = Vec::new();
                for _ in 0..self.choices.of(&[0, 0, 0, 0, 1, 2]) {
                    bytes.extend(u32::try_from(self.choices.below(20)).unwrap_or(0).to_le_bytes());
                    (0..16).for_each(|_| bytes.extend(self.choices.of(SMALL).to_le_bytes()));
                }
                counted(&bytes, out);
            }
            "Stream" if self.choices.below(4) == 0 => out.extend([0; 8]),
            "Stream" | "CUstream" => out.extend(self.handle("Stream").to_le_bytes()),
            "Event" => out.extend(self.handle("Event").to_le_bytes()),
            "CUarray" => out.extend(self.handle("Array").to_le_bytes()),
            "CUmipmappedArray" => out.extend(self.handle("Mipmap").to_le_bytes()),
            "DevicePtr" => out.extend(self.address().to_le_bytes()),
            "ContextId" => {
                let made = self.is_about_contexts || self.choices.below(8) == 0;
                let context = if made { self.choices.of(&[65, 66, 67, 68, 1, 0, u32::MAX]) } else { 1u32 };
                out.extend(context.to_le_bytes());
            }
            "Object" => {
                let known = self.objects.get(self.choices.below(16)).copied();
                out.extend(known.unwrap_or_else(|| self.choices.of(&[0, 1, 12345, u64::MAX])).to_le_bytes());
            }
            "Token" => {
                let known = self.tokens.get(self.choices.below(17)).copied();
                out.extend(known.unwrap_or_else(|| [self.choices.byte(); 16]));
            }
            "SharedPart" if !self.parts.is_empty() && self.choices.below(4) > 0 => {
                let place = self.choices.below(self.parts.len());
                out.extend(self.parts[place]);
            }
            "PooledPiece" if !self.pieces.is_empty() && self.choices.below(4) > 0 => {
                let place = self.choices.below(self.pieces.len());
                out.extend(self.pieces[place]);
            }
            "ImageKind" => out.extend(u32::try_from(self.choices.below(2)).unwrap_or(0).to_le_bytes()),
            // Waits that are not over hold up a software GPU for a second each.
            "MemoryOpKind" => {
                let is_wait = self.choices.below(256) == 0;
                out.extend(if is_wait { 1u32 } else { self.choices.of(&[0, 0, 5]) }.to_le_bytes());
            }
            // Within the staging area, mostly.
            "Staged" if self.choices.below(8) > 0 => {
                out.extend(self.choices.of(&[0u64, 0, 64, 4096]).to_le_bytes());
                out.extend(self.choices.of(&[0u64, 8, 64, 1000, 4096, 60_000]).to_le_bytes());
            }
            "TensorMap" => (0..128).for_each(|_| out.push(self.choices.byte())),
            _ => self.structure(name, of, out),
        }
    }

    /// A declared structure `NAME{field:Type,…}`, one of several `NAME{0:Type,1:Type,…}`, or a number of those `NAME{Word=0,…}`.
    fn structure(&mut self, name: &str, of: &'static str, out: &mut Vec<u8>) {
        if let Some((of, count)) =
            of.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')?.split_once("; "))
        {
            let count = count.parse().expect("a length");
            return (0..count).for_each(|_: usize| self.value(name, of, out));
        }
        let declared = self.structs.get(of).unwrap_or_else(|| panic!("no type {of} is declared"));
        let fields = fields(declared.trim_end_matches('*').trim_end_matches('}'));
        if fields.iter().all(|field| field.contains('=')) {
            let word =
                fields[self.choices.below(fields.len())].split('=').nth(1).and_then(|word| word.parse().ok());
            let word: u32 = word.unwrap_or(0);
            return out.extend(word.to_le_bytes());
        }
        if fields[0].starts_with(|first: char| first.is_ascii_digit()) {
            let (number, of) = fields[self.choices.below(fields.len())].split_once(':').unwrap_or(("0", ""));
            out.push(number.parse().expect("a number"));
            // What stands behind the type is for people.
            let of = of.split(' ').next().unwrap_or(of);
            if !of.is_empty() {
                self.value(name, of, out);
            }
            return;
        }
        for field in fields {
            let (name, of) = field.split_once(':').expect("a field has a type");
            self.value(name.trim(), of.trim(), out);
        }
    }

    fn small(&mut self, name: &str) -> u32 {
        match name {
            "device" if self.choices.below(16) > 0 => 0,
            "upload" if self.choices.below(8) > 0 => self.uploaded.unwrap_or(0),
            "upload" => u32::try_from(self.choices.below(3)).unwrap_or(0),
            "format" => self.choices.of(FORMATS),
            "channels" | "element_bytes" => self.choices.of(&[1, 2, 4, 4, 3, 0, 8]),
            "flags" if self.choices.below(4) > 0 => 0,
            _ => self.choices.of(SMALL),
        }
    }
}

/// The parts between commas that are in no brackets.
fn fields(text: &'static str) -> Vec<&'static str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, letter) in text.char_indices() {
        match letter {
            '[' | '<' => depth += 1,
            ']' | '>' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&text[start..]);
    found.retain(|part| !part.trim().is_empty());
    found
}

fn counted(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}
