use super::*;

fn clamping() -> Sampler {
    Sampler { address: [AddressMode::Clamp; 3], border: [9.0; 4], ..Sampler::default() }
}

/// Four by two floats: 0 to 3, 10 to 13.
fn texture(sampler: Sampler) -> Texture {
    let texel = Texel { kind: ChannelKind::Float, channel_bytes: 4, channels: 1 };
    let level = Level { address: 1 << 20, extent: [4, 2, 1], pitch: 16, slice: 32 };
    Texture { levels: vec![level], texel, sampler, zero_outside: false }
}

fn at(texture: &Texture, x: f32, y: f32) -> f32 {
    let mut fetch = |address: u64, width: u32| {
        assert_eq!(width, 4);
        let index = (address - (1 << 20)) / 4;
        assert!(index < 8, "{address:#x}");
        Ok(u64::from(((index % 4 + index / 4 * 10) as f32).to_bits()))
    };
    let value = texture.sample(2, Coordinate::Floats([x, y, 0.0]), 0, 0.0, &mut fetch).unwrap();
    f32::from_bits(value[0])
}

#[test]
fn the_nearest_element_and_each_way_to_be_outside() {
    let with = |mode, normalized| texture(Sampler { address: [mode; 3], normalized, ..clamping() });
    let clamp = with(AddressMode::Clamp, false);
    assert_eq!((at(&clamp, 1.9, 1.2), at(&clamp, -5.0, 0.0), at(&clamp, 1e30, 9.0)), (11.0, 0.0, 13.0));
    assert_eq!(at(&clamp, f32::NAN, 0.0), 0.0);
    assert_eq!(at(&with(AddressMode::Border, false), 4.0, 0.0), 9.0);
    assert_eq!(at(&with(AddressMode::Wrap, false), 5.0, 0.0), 3.0, "only normalized coordinates wrap");
    assert_eq!(at(&with(AddressMode::Wrap, true), 1.3, 0.0), 1.0);
    assert_eq!(at(&with(AddressMode::Wrap, true), -0.1, 0.0), 3.0);
    assert_eq!(at(&with(AddressMode::Mirror, true), 1.1, 0.0), 3.0);
    assert_eq!(at(&with(AddressMode::Mirror, true), -0.3, 0.0), 1.0);
}

#[test]
fn between_elements_in_256ths() {
    let linear = texture(Sampler { linear: true, ..clamping() });
    assert_eq!((at(&linear, 0.5, 0.5), at(&linear, 1.0, 0.5), at(&linear, 1.0, 1.0)), (0.0, 0.5, 5.5));
    assert_eq!(at(&linear, 0.5 + 1.0 / 1024.0, 0.5), 0.0, "less than half of a 256th");
    assert_eq!(at(&linear, 4.0, 0.5), 3.0, "past the last centre");
    let border = texture(Sampler { linear: true, address: [AddressMode::Border; 3], ..clamping() });
    assert_eq!(at(&border, 4.0, 0.5), 6.0);
}

#[test]
fn integers_become_fractions_unless_they_are_to_stay() {
    let value = |kind, channel_bytes, as_integer, raw| {
        let texel = Texel { kind, channel_bytes, channels: 1 };
        Texture { texel, ..texture(Sampler { as_integer, ..clamping() }) }.channel(raw)
    };
    assert_eq!(value(ChannelKind::Unsigned, 1, false, 255), 1.0_f32.to_bits());
    assert_eq!(value(ChannelKind::Signed, 1, false, 0x80), (-1.0_f32).to_bits());
    assert_eq!(value(ChannelKind::Signed, 1, true, 0x80), (-128_i32).cast_unsigned());
    assert_eq!(value(ChannelKind::Unsigned, 2, false, 0xffff), 1.0_f32.to_bits());
    assert_eq!(value(ChannelKind::Unsigned, 4, false, 7), 7);
    assert_eq!(value(ChannelKind::Float, 2, false, 0x3c00), 1.0_f32.to_bits());
}

#[test]
fn a_surface_access_outside_traps_clamps_or_does_nothing() {
    let texel = Texel { kind: ChannelKind::Unsigned, channel_bytes: 4, channels: 1 };
    let level = Level { address: 1000, extent: [4, 2, 3], pitch: 16, slice: 32 };
    let surface = Surface { level, texel };
    let place = |at, outside| surface.place(at, 4, outside);
    assert_eq!(place([12, 1, 2], Outside::Trap), Ok(Some(1000 + 64 + 16 + 12)));
    for at in [[13, 0, 0], [-4, 0, 0], [0, 2, 0], [0, -1, 0], [0, 0, 3]] {
        assert_eq!(place(at, Outside::Trap), Err(Fault::Trap), "{at:?}");
        assert_eq!(place(at, Outside::Zero), Ok(None), "{at:?}");
    }
    assert_eq!(place([i32::MAX, -1, 9], Outside::Clamp), Ok(Some(1000 + 64 + 12)));
    assert_eq!(surface.place([0; 3], 32, Outside::Clamp), Ok(None), "wider than a row");
}
