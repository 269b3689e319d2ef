//! Textures and surfaces, lane by lane. Which texels a coordinate means: `crate::texture`.

use super::Launch;
use super::access::{Access, Target};
use super::step::{View, u32_of};
use super::warp::{Thread, Warp, lanes};
use crate::code::{Area, Lanes, Question, Sample, Src, SurfaceAccess, SurfaceValues};
use crate::texture::{Coordinate, Shape};
use crate::{Access as Kind, Fault};

/// A number that names no object.
fn nothing(object: u64) -> Fault {
    Fault::IllegalAddress { address: object, bytes: 0, access: Kind::Load }
}

impl Launch<'_> {
    /// `txq`, `suq`.
    pub(super) fn ask(&self, surface: bool, question: Question, object: u64) -> Result<u64, Fault> {
        let (level, levels) = if surface {
            let surface = self.objects.surfaces.get(&object).ok_or_else(|| nothing(object))?;
            (Some(&surface.level), 1)
        } else {
            let texture = self.objects.textures.get(&object).ok_or_else(|| nothing(object))?;
            (texture.levels.first(), texture.levels.len())
        };
        Ok(match question {
            Question::Side(axis) => level.map_or(0, |level| u64::from(level.extent[axis])),
            Question::Levels => levels as u64,
        })
    }
}

impl Warp {
    fn numbers(&self, list: &[Src], view: &View<'_, '_>) -> [Lanes; 4] {
        let mut numbers = [[0; 32]; 4];
        for (number, src) in numbers.iter_mut().zip(list) {
            let mut buffer = [0; 32];
            *number = *self.read(*src, view, &mut buffer);
        }
        numbers
    }

    pub(super) fn sample(
        &mut self,
        sample: &Sample,
        view: &View<'_, '_>,
        mask: u32,
        access: &mut Access<'_>,
    ) -> Result<(), Fault> {
        let mut buffer = [0; 32];
        let objects = *self.read(sample.object, view, &mut buffer);
        let numbers = self.numbers(&sample.coordinates, view);
        let levels = sample.level.map(|level| *self.read(level, view, &mut buffer));
        let (mut out, nobody) = ([[0; 32]; 4], Thread::default());
        let mut fetch = |at: u64, width: u32| {
            let target = Target { area: Area::Global, at, bytes: width };
            access.load(target, (0, width), &nobody, &[])
        };
        let Shape { dimensions, layered } = sample.shape;
        for lane in lanes(mask) {
            let texture = view.launch.objects.textures.get(&objects[lane]);
            let texture = texture.ok_or_else(|| nothing(objects[lane]))?;
            let first = usize::from(layered);
            let word = |index: usize| numbers.get(index).map_or(0, |number| u32_of(number[lane]));
            let floats: [f32; 3] = std::array::from_fn(|axis| f32::from_bits(word(first + axis)));
            let value = if let Some(channel) = sample.gather {
                texture.gather(channel, floats, &mut fetch)?
            } else {
                let at = if sample.floats {
                    Coordinate::Floats(floats)
                } else {
                    Coordinate::Elements(std::array::from_fn(|axis| {
                        i64::from(word(first + axis).cast_signed())
                    }))
                };
                let level = levels.map_or(0.0, |levels| f32::from_bits(u32_of(levels[lane])));
                let layer = if layered { word(0) } else { 0 };
                texture.sample(dimensions, at, layer, level, &mut fetch)?
            };
            for (channel, value) in out.iter_mut().zip(value) {
                channel[lane] = u64::from(value);
            }
        }
        for (dst, values) in sample.dst.iter().zip(&mut out) {
            let Some(dst) = dst else { continue };
            values.iter_mut().for_each(|value| *value &= dst.mask);
            self.write(view.group.base + dst.slot, mask, values);
        }
        Ok(())
    }

    pub(super) fn surface(
        &mut self,
        surface: &SurfaceAccess,
        view: &View<'_, '_>,
        mask: u32,
        access: &mut Access<'_>,
    ) -> Result<(), Fault> {
        let mut buffer = [0; 32];
        let objects = *self.read(surface.object, view, &mut buffer);
        let numbers = self.numbers(&surface.coordinates, view);
        let (loads, stores) = match &surface.values {
            SurfaceValues::Load(list) => (&list[..], &[][..]),
            SurfaceValues::Store(list) => (&[][..], &list[..]),
        };
        let sources = self.numbers(stores, view);
        let width = surface.width;
        let bytes = width * u32::try_from(loads.len().max(stores.len())).unwrap_or(1);
        let (mut out, mut nobody) = ([[0; 32]; 4], Thread::default());
        for lane in lanes(mask) {
            let word = |index: usize| u32_of(numbers[index & 3][lane]).cast_signed();
            let object =
                view.launch.objects.surfaces.get(&objects[lane]).ok_or_else(|| nothing(objects[lane]))?;
            let at = match (surface.shape.layered, surface.shape.dimensions) {
                (false, 1) => [word(0), 0, 0],
                (false, 2) => [word(0), word(1), 0],
                (false, _) => [word(0), word(1), word(2)],
                (true, 1) => [word(1), 0, word(0)],
                (true, _) => [word(1), word(2), word(0)],
            };
            // Where nothing is touched, a load gives the zeros that are in `out`.
            let Some(at) = object.place(at, bytes, surface.outside)? else { continue };
            let target = Target { area: Area::Global, at, bytes };
            for (index, values) in (0..).zip(&mut out).take(loads.len()) {
                values[lane] = access.load(target, (width * index, width), &nobody, &[])?;
            }
            for (index, values) in (0..).zip(&sources).take(stores.len()) {
                access.store(target, (width * index, width), values[lane], &mut nobody, &mut [])?;
            }
        }
        for (dst, values) in loads.iter().zip(&mut out) {
            let Some(dst) = dst else { continue };
            values.iter_mut().for_each(|value| *value &= dst.mask);
            self.write(view.group.base + dst.slot, mask, values);
        }
        Ok(())
    }
}
