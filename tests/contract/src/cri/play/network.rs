//! The steps of a pod on a network of the node's, and of who else is on it.

use containerd_shim_protos::api::Empty;
use serde_json::json;

use super::Stage;
use crate::{
    cri::step::Step,
    cri_api::{PodSandboxConfig, PodSandboxStatusResponse},
    outcome::Outcome,
    play::Played,
};

const LINK: &str = "link() { ip route get $POD | sed 's/.* dev //; s/ .*//'; }; ";

/// A script of a case on a network that did not go to its end.
pub(super) fn failed(played: &Played) -> Option<&(String, Outcome)> {
    // CRI leaves out a code of 0.
    let is_well = |outcome: &Outcome| {
        let codes = [outcome.get("code"), outcome.get("exit_code")];
        codes.into_iter().flatten().all(|code| *code == json!(0)) && !outcome.contains_key("error")
    };
    played
        .iter()
        .find(|(step, outcome)| (step.contains(" OnNode") || step.contains(" ExecSync")) && !is_well(outcome))
}

impl Stage<'_> {
    /// Its addresses get that name.
    pub(super) async fn run_pod_on(
        &mut self,
        network: &'static str,
        change: fn(&mut PodSandboxConfig),
        name: &str,
    ) -> Outcome {
        self.network = Some(network);
        change(&mut self.config);
        for mapping in self.config.port_mappings.iter_mut().filter(|mapping| mapping.host_port == 0) {
            let port = self.node.next_port();
            mapping.host_port = port.into();
            self.known.push(("PORT".into(), port.to_string()));
        }
        let outcome = self.run_pod(|_| {}).await;
        let status: PodSandboxStatusResponse =
            self.node.client.cri("PodSandboxStatus", self.sandbox()).await.unwrap_or_default();
        let network = &status.status.network;
        self.known.push((name.into(), network.ip.clone()));
        self.known.extend(network.additional_ips.iter().map(|more| (format!("{name}6"), more.ip.clone())));
        self.name_known();
        outcome
    }

    /// Says whether all of it came to be, no more: the pod itself says the rest.
    pub(super) async fn run_other(&mut self, handler: &'static str, script: &str) -> Outcome {
        let mut other = Stage::new(&format!("other-of-{}", self.uid), self.node, handler);
        let network = self.network.expect("the pod itself has one");
        let mut outcome = other.run_pod_on(network, |_| {}, "OTHER").await;
        outcome.extend(other.create("app", script, |_| {}).await);
        outcome.extend(other.of_container::<Empty>("StartContainer", "app").await);
        outcome.extend(other.until(&Step::Until("app", "there"), "app").await.unwrap_or_default());
        outcome.retain(|field, _| field == "error" || field == "comes");
        self.known.append(&mut other.known);
        self.name_known();
        self.other = Some(Box::new(other));
        outcome
    }

    /// What scripts say of the network is the same for both runtimes.
    fn name_known(&mut self) {
        for (name, value) in self.known.iter().filter(|(_, value)| !value.is_empty()) {
            self.names.add(value, name);
        }
    }

    /// One that knows the network, if there is one, and ends where something fails: what fails for both runtimes would be alike.
    pub(super) fn script(&self, script: &str) -> String {
        let known = self.known.iter().map(|(name, value)| format!("{name}={value}; "));
        let strict = self.network.map(|_| "set -e; ".to_owned());
        strict.into_iter().chain(known).chain([script.to_owned()]).collect()
    }

    /// It knows the node's link to the pod, too, where the node routes.
    pub(super) fn on_node(&self, script: &str) -> Outcome {
        let (said, code) = self.node.run(&self.script(&format!("{LINK}{script}")));
        let lines = said.lines().enumerate();
        let lines = lines.map(|(at, line)| (format!("said {at}"), self.text(line.as_bytes())));
        lines.chain([("code".into(), json!(code))]).collect()
    }
}
