//! Where work goes that touches mapped memory of another device.

use gpu_proxy::device::Place;

use super::{library, opened, played};

/// Not a test of its own: says what came of each call.
#[test]
#[ignore = "played by the tests here as their child"]
fn child() {
    let mut device = opened(2).unwrap();
    let [first, second] = [0, 1].map(|number| device.context_create(number, 0, true).unwrap());
    let at = device.alloc(second, 4 << 20).unwrap();
    let place = |context| Place { context, stream: None };
    println!("at home {:?}", device.write(place(second), at, &[0; 8]));
    println!("from elsewhere {:?}", device.write(place(first), at + 8, &[0; 8]));
    println!("wrong {:?}", device.write(place(first), at + 8, &[0; 13]));
}

#[test]
fn work_on_anothers_memory_goes_aside_and_keeps_its_place_among_others() {
    let folder = tempfile::tempdir().unwrap();
    let source =
        concat!("#define ASIDE\n", include_str!("../data/driver.c"), include_str!("../data/aside.c"));
    library(folder.path(), source);
    let said = played("aside::child", folder.path());
    let lines: Vec<&str> = said.lines().skip_while(|line| !line.starts_with("driver: written")).collect();
    let aside = [
        "driver: recorded, device 0, stream 0",
        "driver: stream made, device 1, stream aside",
        "driver: waits, device 1, stream aside",
        "driver: event 0 ended",
        "driver: written, device 1, stream aside",
        "driver: recorded, device 1, stream aside",
        "driver: waits, device 0, stream 0",
        "driver: event 1 ended",
        "driver: stream ended, device 0, stream aside",
    ];
    let again = aside.map(|line| line.replace("event 0", "event 2").replace("event 1", "event 3"));
    let mut expected = vec!["driver: written, device 1, stream 0", "at home Ok(())"];
    expected.extend(aside);
    expected.push("from elsewhere Ok(())");
    expected.extend(again.iter().map(String::as_str));
    expected.push("wrong Err(CUDA_ERROR_INVALID_VALUE (1))");
    assert_eq!(lines[..expected.len()], expected);
}
