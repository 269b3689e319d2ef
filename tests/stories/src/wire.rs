//! As much of ttrpc and protobuf as one Create and one Update take. Source: containerd/ttrpc `PROTOCOL.md`; containerd `api/runtime/task/v2/shim.proto`;
//! the protobuf documentation, "Encoding".

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

const REQUEST: u8 = 1;
const STREAM: u32 = 1;
const HEADER_BYTES: usize = 10;

/// The frame of a Create: a bind of `image` as the root, the shim's configuration in the runtime options.
pub fn create(id: &str, bundle: &str, image: &str, config: &str) -> Vec<u8> {
    let root = [field(1, b"bind"), field(2, image.as_bytes()), field(4, b"rbind"), field(4, b"rw")].concat();
    let options = [field(1, b"runtimeoptions.v1.Options"), field(2, &field(2, config.as_bytes()))].concat();
    let create =
        [field(1, id.as_bytes()), field(2, bundle.as_bytes()), field(3, &root), field(10, &options)].concat();
    frame("Create", &create)
}

/// The frame of an Update with `resources` of the OCI spec, as JSON.
pub fn update(id: &str, resources: &str) -> Vec<u8> {
    let any = [
        field(1, b"types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"),
        field(2, resources.as_bytes()),
    ];
    frame("Update", &[field(1, id.as_bytes()), field(2, &any.concat())].concat())
}

/// Sends a frame and waits for the answer: none if the server ends first, an error's text if it is one.
pub fn ask(mut stream: UnixStream, frame: &[u8]) -> Option<Result<(), String>> {
    stream.write_all(frame).ok()?;
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(result) = answer(&bytes) {
            return Some(result);
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
        }
    }
}

/// What `bytes` answer, once they are complete: a status with a code is an error.
fn answer(bytes: &[u8]) -> Option<Result<(), String>> {
    let len = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let body = bytes.get(HEADER_BYTES..HEADER_BYTES + len)?;
    // Status is field 1 of a response; of the status, 1 is the code and 2 the text.
    match body.first() {
        Some(0x0a) if body.get(1) != Some(&0) => Some(Err(String::from_utf8_lossy(body).into_owned())),
        _ => Some(Ok(())),
    }
}

fn frame(method: &str, request: &[u8]) -> Vec<u8> {
    let body =
        [field(1, b"containerd.task.v2.Task"), field(2, method.as_bytes()), field(3, request)].concat();
    let len = u32::try_from(body.len()).expect("a short request");
    [&len.to_be_bytes()[..], &STREAM.to_be_bytes(), &[REQUEST, 0], &body].concat()
}

/// A field of the wire type "length-delimited".
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut len = bytes.len();
    while len >= 0x80 {
        out.push(len.to_le_bytes()[0] | 0x80);
        len >>= 7;
    }
    out.push(len.to_le_bytes()[0]);
    out.extend_from_slice(bytes);
    out
}
