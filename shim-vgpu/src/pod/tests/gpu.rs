//! Pods with a GPU.

use vgpu_zone_api::shim::{DomainRef, Request, ZoneId};

use super::{fake_proxy::FakeProxy, *};
use crate::persist::random_uuid;

#[tokio::test]
async fn a_gpu_is_granted_before_the_container_and_released_after_it() {
    let node = Node::new(Habits::default()).await;
    let proxy = FakeProxy::start(&node.world.proxy_socket());
    let request = node.request("exit0", json!({"vgpu.dev/gpu": "1", "vgpu.dev/memory-mib": "64"}));
    node.pod.clone().create(request).await.unwrap();
    let uuid = *node.world.left.lock().unwrap().domains.values().next().unwrap();
    node.start("exit0", "").await.unwrap();
    assert_eq!(node.wait("exit0", "").await, 0);
    node.delete("exit0").await.unwrap();
    let asked = proxy.asked();
    let [
        Request::Register { zone, domain, .. },
        Request::Grant { zone: granted, bytes, .. },
        Request::Release { zone: released, domain: of },
    ] = &asked[..]
    else {
        panic!("{asked:?}")
    };
    assert!(
        zone == granted && zone == released && domain.uuid == uuid && *bytes == Some(64 << 20),
        "{asked:?}"
    );
    assert_eq!(of, domain, "it is released for the domain it was registered for");
    assert!(proxy.zones().is_empty());
    node.world.assert_nothing_left("after delete");
}

/// A pod's next sandbox has the same zone, and may be up before this one is cleaned up.
#[tokio::test]
async fn a_sandbox_that_is_cleaned_up_late_leaves_the_zone_to_the_pods_next_one() {
    let node = Node::new(Habits::default()).await;
    let proxy = FakeProxy::start(&node.world.proxy_socket());
    node.pod.clone().create(node.request("run", json!({"vgpu.dev/gpu": "1"}))).await.unwrap();
    let (zone, domain) = proxy.zones().pop_first().unwrap();
    // The domain id is used again, the UUID is not.
    let next = DomainRef { uuid: random_uuid().unwrap(), ..domain };
    proxy.hand_over(zone, next);
    node.kill("run", 9).await.unwrap();
    node.wait("run", "").await;
    node.delete("run").await.unwrap();
    assert_eq!(proxy.zones(), [(zone, next)].into());
    node.world.assert_nothing_left("after delete");
}

#[tokio::test]
async fn a_create_whose_zone_another_domain_has_fails_and_leaves_it_there() {
    let node = Node::new(Habits::default()).await;
    let proxy = FakeProxy::start(&node.world.proxy_socket());
    let zone = ZoneId::of_sandbox(None, "default", "run");
    let last = DomainRef { domid: 7, uuid: random_uuid().unwrap() };
    proxy.hand_over(zone, last);
    let error = node.pod.clone().create(node.request("run", json!({"vgpu.dev/gpu": "1"}))).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::ZoneConflict), "{error}");
    assert_eq!(proxy.zones(), [(zone, last)].into());
    node.world.assert_nothing_left("after the conflict");
}

/// What a new gpu-proxy is told comes from the record, and nothing that was taken back meanwhile.
#[tokio::test]
async fn a_gpu_proxy_that_was_restarted_is_told_of_the_zone_again() {
    let node = Node::new(Habits::default()).await;
    let socket = node.world.proxy_socket();
    let pod = |kind: &str| json!({"io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": "pause"});
    let gpu = |mib: &str| {
        let mut annotations = pod("container");
        annotations["vgpu.dev/gpu"] = "1".into();
        annotations["vgpu.dev/memory-mib"] = mib.into();
        annotations
    };
    node.pod.clone().create(node.request("pause", pod("sandbox"))).await.unwrap();
    let first = FakeProxy::start(&socket);
    node.pod.clone().create(node.request("run1", gpu("64"))).await.unwrap();
    node.pod.clone().create(node.request("run2", gpu("32"))).await.unwrap();
    assert_eq!(first.asked().len(), 4, "each container registers and is granted: {:?}", first.asked());
    drop(first);
    node.delete("run2").await.unwrap();

    let second = FakeProxy::start(&socket);
    let again = second.asked_until(2).await;
    let [Request::Register { domain, .. }, Request::Grant { container, bytes, .. }] = &again[..] else {
        panic!("{again:?}")
    };
    let left = node.world.left.lock().unwrap().domains.clone();
    assert_eq!(left.get(&domain.domid), Some(&domain.uuid));
    assert_eq!((container.as_str(), *bytes), ("run1", Some(64 << 20)));
    drop(second);

    let third = FakeProxy::start(&socket);
    assert_eq!(third.asked_until(2).await, again, "the same at each restart");
    node.delete("run1").await.unwrap();
    node.kill("pause", 9).await.unwrap();
    node.wait("pause", "").await;
    node.delete("pause").await.unwrap();
    let all = third.asked();
    assert!(
        matches!(
            &all[2..],
            [Request::Revoke { container, domain: from, .. }, Request::Release { domain: of, .. }]
                if container == "run1" && from == domain && of == domain
        ),
        "{all:?}"
    );
    drop(third);
    let fourth = FakeProxy::start(&socket);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(fourth.asked(), [], "a pod that is gone is not told");
    node.world.assert_nothing_left("after the sandbox");
}

#[tokio::test]
async fn a_gpu_proxy_that_hangs_keeps_nothing_from_being_cleaned_up() {
    let node = Node::new(Habits::default()).await;
    let socket = node.world.proxy_socket();
    let proxy = FakeProxy::start(&socket);
    node.pod.clone().create(node.request("run", json!({"vgpu.dev/gpu": "1"}))).await.unwrap();
    drop(proxy);
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let begun = std::time::Instant::now();
    node.kill("run", 9).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "a Kill waits for gpu-proxy: {:?}", begun.elapsed());
    let meanwhile = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        crate::mount::below(node.world.dir.path()).unwrap()
    };
    let (deleted, mounts) = tokio::join!(node.delete("run"), meanwhile);
    deleted.unwrap();
    assert!(mounts.is_empty(), "they wait for gpu-proxy: {mounts:?}");
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    node.world.assert_nothing_left("after delete");
}
