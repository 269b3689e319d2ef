//! Stories of connections to ports of the guest. Their bytes are vgpu-forward's matter.

mod world;

use std::{
    io::{Read, Write},
    net::TcpListener,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use ttrpc::Code;
use vgpu_agent_api::agent::CloseStreamRequest;
use world::{refusal, soon, story};

#[test]
fn a_connection_is_a_stream_until_it_ends_or_the_shim_closes_it() {
    story(async |world| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().into();
        let mut stream = world.forward(7, port, false).await.unwrap();
        let (mut program, _) = listener.accept().unwrap();
        program.write_all(b"hello").unwrap();
        let mut words = [0; 5];
        stream.read_exact(&mut words).await.unwrap();
        assert_eq!(&words, b"hello");

        // One stream an id, for as long as it is there.
        assert_eq!(refusal(world.forward(7, port, false).await.map(drop)).0, Code::ALREADY_EXISTS);
        let (second, _) = listener.accept().unwrap();
        drop(second);
        // The shim may do so with a stream that it could not map.
        world.agent.close_stream(soon(), &CloseStreamRequest { id: 7, ..Default::default() }).await.unwrap();
        assert_eq!(program.read(&mut words).unwrap_or(0), 0);
        assert_eq!(stream.read(&mut words).await.unwrap(), 0);

        let mut again = world.forward(7, port, false).await.unwrap();
        let (program, _) = listener.accept().unwrap();
        drop(program);
        assert_eq!(again.read(&mut words).await.unwrap(), 0);
        again.shutdown().await.unwrap();
    });
}

#[test]
fn ipv6_is_tried_where_ipv4_refuses_and_not_the_other_way_round() {
    story(async |world| {
        let [v4, v6] = ["127.0.0.1:0", "[::1]:0"].map(|at| TcpListener::bind(at).unwrap());
        let [port_v4, port_v6] = [&v4, &v6].map(|one| one.local_addr().unwrap().port().into());
        for (id, listener, port, ipv6) in
            [(1, &v4, port_v4, false), (2, &v6, port_v6, true), (3, &v6, port_v6, false)]
        {
            world.forward(id, port, ipv6).await.unwrap();
            listener.accept().unwrap();
        }
        assert_eq!(refusal(world.forward(4, port_v4, true).await.map(drop)).0, Code::INTERNAL);
    });
}

#[test]
fn what_is_no_port_or_no_id_and_who_refuses_is_said() {
    story(async |world| {
        for (id, port) in [(0, 80), (1, 65536), (1, u32::MAX)] {
            let refused = refusal(world.forward(id, port, false).await.map(drop));
            assert_eq!(refused.0, Code::INVALID_ARGUMENT, "{refused:?}");
        }
        // Nobody has it any more.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (_, text) = refusal(world.forward(1, port.into(), false).await.map(drop));
        assert!(text.contains(&format!("connect to port {port}")) && text.contains("refused"), "{text}");
    });
}
