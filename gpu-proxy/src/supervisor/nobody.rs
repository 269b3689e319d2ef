//! Workers of nobody: each is asked one thing of the device, answers, and ends. They see nothing of a guest, and no zone has them: what
//! they say is believed by all of them.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use vgpu_codes::Code;

use super::Supervisor;
use super::cgroup::WorkerCgroup;
use super::environment::environment;
use super::foreign::Foreign;
use super::process::{failed, kill, reaped, report};
use super::refusal::Refusal;
use super::spawn::{Newborn, Order};
use crate::worker::assignment::{self, Assignment, ChannelKind, Question, Report};

/// Their pod: a name that no pod's uid can be.
const POD: &str = "_nobody";

impl Supervisor {
    /// Asks one of its own, which is reaped and has left nothing when this returns.
    ///
    /// # Errors
    /// It cannot be born, does not answer within `limit`, or says that it cannot tell.
    pub(super) async fn ask_nobody(&self, question: Question, limit: Duration) -> Result<Report, Refusal> {
        let uid = self.zones().lend_uid()?;
        let said = self.ask_nobody_of(uid, question, limit).await;
        self.zones().give_uid_back(uid);
        self.cgroups.iter().for_each(|all| all.remove_pod(POD));
        said
    }

    async fn ask_nobody_of(
        &self,
        uid: Option<u32>,
        question: Question,
        limit: Duration,
    ) -> Result<Report, Refusal> {
        let cannot = |error| failed("a worker cannot be asked about the device", &error);
        let cgroup = self.cgroups.as_ref().map(|all| all.worker(POD, 0)).transpose().map_err(cannot)?;
        let order = Order {
            program: None,
            uid,
            cgroup: cgroup.as_ref().map(WorkerCgroup::open).transpose().map_err(cannot)?,
            environment: environment(self.device, None, None),
        };
        // Its log is kept open and not read: what went wrong is in its report.
        let Newborn { pidfd, socket, log, .. } = self.spawner.spawn(order).await.map_err(cannot)?;
        let (pidfd, socket) = (Arc::new(pidfd), Arc::new(Foreign::new(socket)));
        let assigned = assignment::send(&*socket, &self.task_of_nobody(question), &[] as &[OwnedFd]);
        let reported = tokio::time::timeout(limit, report(socket, assigned)).await;
        kill(&pidfd);
        let _ = reaped(&pidfd).await;
        drop(log);
        // Removing a cgroup may have to wait for the kernel.
        let _ = tokio::task::spawn_blocking(move || drop(cgroup)).await;
        match reported {
            Ok(Ok(Report::Failed { code, text })) => {
                Err(Refusal::new(Code::from_number(code).unwrap_or(Code::WorkerFailed), text))
            }
            Ok(Ok(report)) => Ok(report),
            Ok(Err(error)) => Err(failed("a worker ended before it said anything of the device", &error)),
            Err(_) => {
                let text = format!("no worker said anything of the device within {} s", limit.as_secs());
                Err(Refusal::new(Code::WorkerFailed, text))
            }
        }
    }

    fn task_of_nobody(&self, question: Question) -> Assignment {
        Assignment {
            zone: POD.into(),
            container: POD.into(),
            peer: "nobody".into(),
            device: self.device,
            device_bytes: self.device_bytes,
            devices: self.zones().devices(),
            nodes: None,
            slot: 0,
            turns: false,
            namespaces: self.namespaces.of_mounts(),
            exchange: false,
            code: false,
            channel: ChannelKind::None(question),
            log_level: crate::logfmt::level(),
        }
    }
}

/// An answer to another question.
pub(super) fn astray(report: &Report) -> Refusal {
    Refusal::new(Code::WorkerFailed, format!("a worker says what it was not asked: {report:?}"))
}
