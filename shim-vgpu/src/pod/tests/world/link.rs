//! The node's devices: streams of the fake guests, and veths for vifs.

use std::{os::fd::AsFd as _, sync::atomic::Ordering, time::Duration};

use async_trait::async_trait;
use tokio::{net::UnixStream, sync::watch};
use uuid::Uuid;
use vgpu_agent_api::agent::StreamOffer;
use vgpu_codes::Code;
use vgpu_netlink::{Namespace, Rtnetlink};

use super::{Fake, FakeGuest};
use crate::{
    error::{Error, Result},
    link::{AnyStream, Link},
    network::Vif,
};

#[async_trait]
impl Link for Fake {
    fn make_devices(&self, domid: u16, _: u16) -> Result<()> {
        self.0.left.lock().unwrap().devices.push(domid);
        Ok(())
    }

    fn remove_devices(&self, domid: u16, _: Uuid, _: u16) -> Result<()> {
        self.0.left.lock().unwrap().devices.retain(|found| *found != domid);
        Ok(())
    }

    fn make_vifs(&self, domid: u16, vifs: &[Vif], namespace: &Namespace) -> Result<()> {
        for vif in vifs {
            let (name, peer) = (vif.name(domid), format!("far{}", vif.number));
            namespace.enter(|| Rtnetlink::open().unwrap().add_veth(&name, &peer).unwrap()).unwrap();
            self.0.left.lock().unwrap().vifs.push(name);
        }
        Ok(())
    }

    fn remove_vifs(&self, domid: u16, _: Uuid, namespace: Option<&Namespace>) -> Result<()> {
        if self.0.no_xl.load(Ordering::Relaxed) {
            return Err(Error::new(Code::NoXen, "no xenstore"));
        }
        let mut left = self.0.left.lock().unwrap();
        assert!(!left.domains.contains_key(&domid), "the domain has them still");
        left.vifs.retain(|name| !name.starts_with(&Vif::names(domid)));
        let Some(namespace) = namespace else { return Ok(()) };
        let remove = || {
            let mut netlink = Rtnetlink::open().unwrap();
            for link in netlink.links().unwrap() {
                if link.name.starts_with(&Vif::names(domid)) {
                    netlink.remove_link(link.index).unwrap();
                }
            }
        };
        namespace.enter(remove).unwrap();
        Ok(())
    }

    fn vif_changes(&self, _: u16, vifs: usize) -> watch::Receiver<u64> {
        assert!(self.0.left.lock().unwrap().vifs.is_empty() && vifs > 0, "it would count too late");
        self.0.vif_changes.subscribe()
    }

    async fn agent(&self, domid: u16) -> Result<AnyStream> {
        assert!(!self.0.habits.panics, "as the test wants");
        let path = FakeGuest::socket(&self.0, domid);
        loop {
            if let Ok(stream) = UnixStream::connect(&path).await {
                let copy = stream.as_fd().try_clone_to_owned().unwrap();
                self.0.agents.lock().unwrap().push(copy.into());
                return Ok(Box::new(self.0.guests.lock().unwrap()[&domid].stream(stream)));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn accept(&self, _: u16, offer: &StreamOffer) -> Result<AnyStream> {
        Ok(Box::new(self.0.streams.lock().unwrap().remove(&offer.id).unwrap()))
    }

    fn endings(&self) -> watch::Receiver<u64> {
        self.0.ended.subscribe()
    }
}
