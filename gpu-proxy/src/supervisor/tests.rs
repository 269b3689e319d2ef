use super::*;

#[test]
fn nothing_of_a_guest_is_pinned_in_a_pv_domain_and_an_arena_is_no_longer_than_it_may_be() {
    const MIB: u64 = 1 << 20;
    let proxy = |arena_max_mib, mapped_per_zone_max_mib| Proxy {
        arena_max_mib,
        mapped_per_zone_max_mib,
        ..Config::default().proxy
    };
    for device in [DeviceKind::Cuda, DeviceKind::Soft, DeviceKind::Null] {
        for is_pv in [false, true] {
            let kind = |arena, mapped, mode| arena_kind(&proxy(arena, mapped), device, mode, is_pv);
            let pinned = is_pv && device == DeviceKind::Cuda;
            let granted = |mib| {
                if pinned { ArenaKind::Nothing } else { ArenaKind::Granted(mib * MIB) }
            };
            assert_eq!(kind(16384, 128, Mode::Xen), granted(64), "half of what a zone may map");
            assert_eq!(kind(9, 128, Mode::Xen), granted(8), "whole chunks");
            assert_eq!(kind(1, 128, Mode::Xen), ArenaKind::Nothing);
            assert_eq!(kind(16384, 128, Mode::Local), ArenaKind::Memory(16384 * MIB));
            for mode in [Mode::Xen, Mode::Local] {
                assert_eq!(kind(0, 128, mode), ArenaKind::Nothing);
            }
        }
    }
}

#[test]
fn auto_is_the_driver_where_there_is_one() {
    let (there, missing) = (Path::new("/proc/version"), Path::new("/proc/none/of/these"));
    let chosen = |configured, sign| choose(configured, sign).ok();
    assert_eq!(chosen(Configured::Auto, there), Some(DeviceKind::Cuda));
    assert_eq!(chosen(Configured::Auto, missing), Some(DeviceKind::Soft));
    assert_eq!(chosen(Configured::Cuda, there), Some(DeviceKind::Cuda));
    assert_eq!(chosen(Configured::Cuda, missing), None);
    for sign in [there, missing] {
        assert_eq!(chosen(Configured::Soft, sign), Some(DeviceKind::Soft));
        assert_eq!(chosen(Configured::Null, sign), Some(DeviceKind::Null));
    }
}
