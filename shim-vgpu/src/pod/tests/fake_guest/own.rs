//! What it serves beyond containerd's Task API.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use ttrpc::r#async::TtrpcContext;
use vgpu_agent_api::{agent, agent_ttrpc, network::Network};

use super::{Habits, Inner, status};

#[async_trait]
impl agent_ttrpc::Agent for Inner {
    async fn hello(&self, _: &TtrpcContext, r: agent::HelloRequest) -> ttrpc::Result<agent::HelloReply> {
        assert_eq!(r.seed.len(), 32);
        Ok(agent::HelloReply {
            major: r.major,
            minor: if self.world.habits.is_old { 0 } else { 7 },
            ..Default::default()
        })
    }

    async fn open_stream(
        &self,
        _: &TtrpcContext,
        r: agent::OpenStreamRequest,
    ) -> ttrpc::Result<agent::StreamOffer> {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        self.streams.lock().unwrap().insert(r.id, ours);
        self.world.streams.lock().unwrap().insert(r.id, theirs);
        Ok(agent::StreamOffer { id: r.id, ..Default::default() })
    }

    async fn oom_kills(
        &self,
        _: &TtrpcContext,
        r: agent::ContainerRequest,
    ) -> ttrpc::Result<agent::OomKillsReply> {
        let Habits { hangs, is_old, .. } = self.world.habits;
        if is_old {
            return Err(status(ttrpc::Code::UNIMPLEMENTED, "OomKills"));
        }
        self.world.oom.asked.send_modify(|asked| *asked += 1);
        if hangs {
            std::future::pending::<()>().await;
        }
        let count = self.world.oom.kills.lock().unwrap().get(&r.container_id).copied().unwrap_or(0);
        Ok(agent::OomKillsReply { count, ..Default::default() })
    }

    async fn set_clock(&self, _: &TtrpcContext, r: agent::SetClockRequest) -> ttrpc::Result<agent::Empty> {
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(r.unix_nanoseconds);
        self.world.clocks.lock().unwrap().push(time);
        if self.world.habits.hangs {
            std::future::pending::<()>().await;
        }
        if self.world.habits.is_slow {
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        Ok(agent::Empty::default())
    }

    async fn set_network(
        &self,
        _: &TtrpcContext,
        r: agent::SetNetworkRequest,
    ) -> ttrpc::Result<agent::Empty> {
        self.world.networks.lock().unwrap().push(Network::from_wire(&r).unwrap());
        if self.world.habits.hangs {
            std::future::pending::<()>().await;
        }
        if self.world.habits.is_slow {
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
        Ok(agent::Empty::default())
    }

    async fn set_sysctls(
        &self,
        _: &TtrpcContext,
        r: agent::SetSysctlsRequest,
    ) -> ttrpc::Result<agent::Empty> {
        self.world.sysctls.lock().unwrap().extend(r.sysctls);
        Ok(agent::Empty::default())
    }

    async fn set_cpus(&self, _: &TtrpcContext, r: agent::SetCpusRequest) -> ttrpc::Result<agent::Empty> {
        self.world.left.lock().unwrap().cpus.push(r.count);
        Ok(agent::Empty::default())
    }

    async fn next_event(&self, _: &TtrpcContext, _: agent::NextEventRequest) -> ttrpc::Result<agent::Event> {
        self.world.oom.polls.acquire().await.unwrap().forget();
        let container_id = self.world.oom.events.lock().unwrap().pop_front().unwrap();
        Ok(agent::Event {
            container_id,
            kind: agent::event::Kind::OUT_OF_MEMORY.into(),
            ..Default::default()
        })
    }

    async fn close_stream(
        &self,
        _: &TtrpcContext,
        _: agent::CloseStreamRequest,
    ) -> ttrpc::Result<agent::Empty> {
        Ok(agent::Empty::default())
    }
}
