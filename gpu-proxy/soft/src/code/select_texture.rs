//! `tex tld4 txq suld sust suq`, by objects and by references of the module (the unified mode). Source: PTX ISA, 9.7.10 and 9.7.11.
//!
//! Refused: samplers apart from textures, cubes, gradients, formatted stores, reductions.

use super::compile::Body;
use super::select::Words;
use super::select_memory::elements;
use super::{Op, Question, Sample, Src, SurfaceAccess, SurfaceValues};
use crate::image::ImageError;
use crate::ptx::{Operand, Ty};
use crate::texture::{Outside, Shape};

const SHAPES: [&str; 5] = ["1d", "2d", "3d", "a1d", "a2d"];

fn shape(words: &Words<'_>) -> Result<Shape, ImageError> {
    let name = words.modifiers.iter().find(|m| SHAPES.contains(m)).ok_or_else(|| words.unsupported())?;
    let layered = name.starts_with('a');
    let dimensions = match name.trim_start_matches('a') {
        "1d" => 1,
        "2d" => 2,
        _ => 3,
    };
    Ok(Shape { dimensions, layered })
}

/// The object and the numbers of the coordinate. Where four are written, the last may mean nothing.
fn place(
    body: &Body<'_, '_>,
    words: &Words<'_>,
    operand: &Operand<'_>,
    shape: Shape,
    ty: Ty,
) -> Result<(Src, Box<[Src]>), ImageError> {
    let Operand::Texel(name, list) = operand else {
        return Err(words.wrong("expected an object and a place"));
    };
    let object = body.src(&Operand::Name { name, negated: false }, Ty::U64, words.line)?;
    let is_texture = matches!(words.op, "tex" | "tld4");
    if is_texture && body.module.has_samplers_apart && matches!(object, Src::Reference(_)) {
        return Err(words.unsupported());
    }
    let count = shape.numbers();
    // By references, which old compilers wrote, four always may be.
    let is_written =
        list.len() == count || list.len() == 4 && (count == 3 || matches!(object, Src::Reference(_)));
    if !is_written {
        return Err(words.wrong("the number of coordinates"));
    }
    let number = |(index, operand): (usize, &Operand<'_>)| {
        let ty = if shape.layered && index == 0 { Ty::U32 } else { ty };
        body.src(operand, ty, words.line)
    };
    let numbers = list.iter().take(count).enumerate().map(number).collect::<Result<_, _>>()?;
    Ok((object, numbers))
}

/// `tex{.level}.shape.v4.type.type {…}, [object, {…}]{, level}`.
pub(super) fn sample(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    words.allow(&[&SHAPES[..], &["level", "base", "v4"]].concat())?;
    let levelled = words.has("level");
    words.count(2 + usize::from(levelled), 2 + usize::from(levelled))?;
    let (shape, floats) = (shape(words)?, floats(words)?);
    let ty = if floats { Ty::F32 } else { Ty::S32 };
    let (object, coordinates) = place(body, words, words.operand(1)?, shape, ty)?;
    // Of elements the level is an integer.
    if levelled && !floats {
        return Err(words.unsupported());
    }
    let level = if levelled { Some(body.src(words.operand(2)?, Ty::F32, words.line)?) } else { None };
    let dst = targets(body, words)?;
    body.push(Op::Sample(Box::new(Sample { object, shape, coordinates, floats, level, gather: None, dst })));
    Ok(())
}

/// `tld4.r.2d.v4.type.f32 {…}, [object, {…}]`.
pub(super) fn gather(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    const CHANNELS: [&str; 4] = ["r", "g", "b", "a"];
    words.allow(&[&CHANNELS[..], &["2d", "v4"]].concat())?;
    words.count(2, 2)?;
    let channel =
        CHANNELS.iter().position(|channel| words.has(channel)).ok_or_else(|| words.unsupported())?;
    let shape = shape(words)?;
    if !floats(words)? {
        return Err(words.unsupported());
    }
    let (object, coordinates) = place(body, words, words.operand(1)?, shape, Ty::F32)?;
    let (gather, dst) = (Some(channel), targets(body, words)?);
    let sample = Sample { object, shape, coordinates, floats: true, level: None, gather, dst };
    body.push(Op::Sample(Box::new(sample)));
    Ok(())
}

/// Whether coordinates are binary32: the second type. The first, the result's, says nothing: it is the texture's.
fn floats(words: &Words<'_>) -> Result<bool, ImageError> {
    match words.types[..] {
        [Ty::F32 | Ty::S32 | Ty::U32, Ty::F32] => Ok(true),
        [Ty::F32 | Ty::S32 | Ty::U32, Ty::S32] => Ok(false),
        _ => Err(words.unsupported()),
    }
}

fn targets(body: &Body<'_, '_>, words: &Words<'_>) -> Result<Box<[Option<super::Dst>]>, ImageError> {
    if !words.has("v4") {
        return Err(words.unsupported());
    }
    elements(words, words.operand(0)?)?.iter().map(|target| body.dst(target, words.line)).collect()
}

/// `suld.b.shape.type.outside value, [object, {…}]` and `sust.b…  [object, {…}], value`.
pub(super) fn surface(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    // How it is cached says nothing here.
    let known = ["b", "v2", "v4", "trap", "clamp", "zero", "ca", "cg", "cs", "cv", "wb", "wt"];
    words.allow(&[&SHAPES[..], &known].concat())?;
    words.count(2, 2)?;
    if !words.has("b") {
        return Err(words.unsupported());
    }
    let width = match words.ty()? {
        ty @ (Ty::B8 | Ty::B16 | Ty::B32 | Ty::B64) => ty.bytes(),
        _ => return Err(words.unsupported()),
    };
    let outside = match words {
        _ if words.has("trap") => Outside::Trap,
        _ if words.has("clamp") => Outside::Clamp,
        _ if words.has("zero") => Outside::Zero,
        _ => return Err(words.wrong("what an access outside does")),
    };
    let shape = shape(words)?;
    let loads = words.op == "suld";
    let (object, coordinates) = place(body, words, words.operand(usize::from(loads))?, shape, Ty::S32)?;
    let listed = elements(words, words.operand(usize::from(!loads))?)?;
    let values = if loads {
        SurfaceValues::Load(listed.iter().map(|value| body.dst(value, words.line)).collect::<Result<_, _>>()?)
    } else {
        let source = |value| body.src(value, words.ty()?, words.line);
        SurfaceValues::Store(listed.iter().map(source).collect::<Result<_, _>>()?)
    };
    let access = SurfaceAccess { object, shape, coordinates, width, outside, values };
    body.push(Op::Surface(Box::new(access)));
    Ok(())
}

/// `txq.width.b32 d, [object]`.
pub(super) fn ask(body: &mut Body<'_, '_>, words: &Words<'_>) -> Result<(), ImageError> {
    words.allow(&["width", "height", "depth", "array_size", "num_mipmap_levels"])?;
    words.count(2, 2)?;
    let question = match words.modifiers[..] {
        ["width"] => Question::Side(0),
        ["height"] => Question::Side(1),
        ["depth" | "array_size"] => Question::Side(2),
        ["num_mipmap_levels"] if words.op == "txq" => Question::Levels,
        _ => return Err(words.unsupported()),
    };
    if words.ty()? != Ty::B32 {
        return Err(words.unsupported());
    }
    let Operand::Memory(name, 0) = *words.operand(1)? else { return Err(words.wrong("expected an object")) };
    let object = body.src(&Operand::Name { name, negated: false }, Ty::U64, words.line)?;
    let Some(dst) = body.dst(words.operand(0)?, words.line)? else { return Ok(()) };
    body.push(Op::Ask { surface: words.op == "suq", question, object, dst: dst.slot });
    Ok(())
}
