//! Volumes, from the bundle to the refusal.

use std::{fs, os::unix::net::UnixListener, path::Path};

use serde_json::json;
use tokio::sync::mpsc;
use vgpu_codes::Code;

use super::{Habits, node::Node};
use crate::pod::steps::Cut;

#[tokio::test]
async fn a_volume_that_cannot_cross_is_refused_before_anything_is_made() {
    let (reached, mut steps) = mpsc::unbounded_channel();
    let cut = Cut::new(move |step| reached.send(step).is_err());
    let node = Node::with_cut(Habits::default(), cut).await;
    let socket = node.world.dir.path().join("docker.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let request = node.request("run", json!({}));
    let file = Path::new(&request.bundle).join("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let volume = json!({"destination": "/d", "type": "bind", "source": socket, "options": ["bind"]});
    spec["mounts"].as_array_mut().unwrap().push(volume);
    let number = spec["mounts"].as_array().unwrap().len() - 1;
    fs::write(&file, spec.to_string()).unwrap();

    let refused = node.pod.clone().create(request).await.unwrap_err();

    assert_eq!(refused.code(), Some(Code::SpecRefused));
    assert!(refused.to_string().starts_with(&format!("mounts[{number}].source")), "{refused}");
    assert!(steps.try_recv().is_err(), "a step was taken");
    node.world.assert_nothing_left("after the refusal");
}
