//! What the shim asks of the guest itself, as [`vgpu_agent_api::agent_ttrpc::Agent`] has it.

mod world;

use std::{collections::HashMap, fs, time::Duration};

use ttrpc::Code;
use vgpu_agent_api::{
    agent::{Empty, NetworkNeighbour, SetClockRequest, SetCpusRequest, SetNetworkRequest, SetSysctlsRequest},
    network::Network,
};
use vgpu_netlink::scratch::Scratch;
use world::{World, refusal, soon, story};

#[test]
fn the_agent_sets_name_clock_seed_cpus_and_network_and_refuses_another_major() {
    story(async |world| {
        let reply = world.hello(1).await.unwrap();
        assert!(reply.memory_bytes > 0 && !reply.kernel_release.is_empty());
        assert_eq!(world.noted("hostname").as_deref(), Some("pod-1"));
        assert_eq!(world.noted("clock").as_deref(), Some("5"));
        assert_eq!(world.noted("seed").as_deref(), Some("[1, 2]"));
        let clock = SetClockRequest { unix_nanoseconds: 6, ..Default::default() };
        world.agent.set_clock(soon(), &clock).await.unwrap();
        assert_eq!(world.noted("clock").as_deref(), Some("6"));
        let cpus = SetCpusRequest { count: 3, ..Default::default() };
        world.agent.set_cpus(soon(), &cpus).await.unwrap();
        assert_eq!(world.noted("cpus").as_deref(), Some("3"));
        let mut network = SetNetworkRequest::default();
        world.agent.set_network(soon(), &network).await.unwrap();
        assert_eq!(world.noted("network").unwrap(), format!("{:?}", Network::default()));
        network.neighbours.push(NetworkNeighbour::default());
        let (code, text) = refusal(world.agent.set_network(soon(), &network).await);
        assert_eq!((code, text.as_str()), (Code::INVALID_ARGUMENT, "VGPU-201: neighbours.interface: 0 of 0"));
        let (code, text) = refusal(world.hello(9).await);
        assert_eq!(code, Code::FAILED_PRECONDITION);
        assert!(text.starts_with("VGPU-501: "), "{text}");
        world.agent.power_off(soon(), &Empty::new()).await.unwrap();
        while world.noted("power").is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(world.noted("power").as_deref(), Some("off"), "after the reply");
    });
}

/// Of a network namespace, and no kernel's first values.
const SYSCTLS: [(&str, &str); 6] = [
    ("net.ipv4.ip_default_ttl", "77"),
    ("net.ipv4.tcp_fin_timeout", "77"),
    ("net.ipv4.tcp_keepalive_time", "777"),
    ("net.ipv4.tcp_retries1", "7"),
    ("net.ipv4.tcp_retries2", "7"),
    ("net.ipv4.tcp_syn_retries", "7"),
];

fn values() -> Vec<String> {
    let read = |(name, _): (&str, &str)| fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/")));
    SYSCTLS.map(|sysctl| read(sysctl).unwrap().trim().to_owned()).to_vec()
}

async fn set(world: &World, more: Option<(&str, &str)>) -> ttrpc::Result<Empty> {
    let sysctls: HashMap<_, _> =
        SYSCTLS.into_iter().chain(more).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    world.agent.set_sysctls(soon(), &SetSysctlsRequest { sysctls, ..Default::default() }).await
}

#[test]
fn no_sysctl_of_a_list_is_set_where_one_is_no_pods() {
    let tell = async |world: &World| {
        let before = values();
        // A map has no order: more than one of them comes behind others.
        for name in
            ["kernel.core_pattern", "kernel.hostname", "vm.swappiness", "net.", "net/../kernel/printk"]
        {
            let (code, text) = refusal(set(world, Some((name, "7"))).await);
            assert_eq!(code, Code::INVALID_ARGUMENT, "{name}: {text}");
            assert!(text.contains("linux.sysctl: "), "{name}: {text}");
            assert_eq!(values(), before, "{name}");
        }
        set(world, None).await.unwrap();
        assert_eq!(values(), SYSCTLS.map(|(_, value)| value));

        let (code, text) = refusal(set(world, Some(("net.ipv4.ip_forward", "yes"))).await);
        assert_eq!(code, Code::INTERNAL, "what the kernel does not take is another error: {text}");
        assert!(text.contains("/proc/sys/net/ipv4/ip_forward"), "{text}");
    };
    Scratch::new().unwrap().enter(|| story(tell));
}
