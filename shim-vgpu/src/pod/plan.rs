//! What a Create works on: read and checked before anything exists.

use std::path::PathBuf;

use containerd_shim_protos::api::CreateTaskRequest;
use vgpu_codes::Code;

use crate::{
    error::{Error, Result},
    io::Stdio,
    names, options,
    spec::{self, Role, Spec, gpu::GpuRequest, hooks::Hooks},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) request: CreateTaskRequest,
    pub(super) bundle: PathBuf,
    pub(super) spec: Spec,
    pub(super) role: Role,
    pub(super) gpu: Option<GpuRequest>,
    pub(super) hooks: Hooks,
    pub(super) stdio: Stdio,
    /// The node's configuration for it, where its runtime handler names one.
    pub(super) config: Option<PathBuf>,
    /// The pod's sandbox, where that is no container.
    pub(super) own: Option<spec::sandbox::Sandbox>,
}

impl Plan {
    pub(super) fn new(request: CreateTaskRequest) -> Result<Plan> {
        names::check_id("container id", &request.id)?;
        let bundle = PathBuf::from(&request.bundle);
        if !request.checkpoint.is_empty() {
            return Err(Error::new(Code::SpecRefused, "checkpoint asks for a restore from a checkpoint"));
        }
        let spec = Spec::load(&bundle)?;
        spec.refuse_host_things()?;
        spec.refuse_sources(&bundle)?;
        let stdio = Stdio {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let hooks = spec.hooks(&request.id, &request.bundle)?;
        let config = options::config_path(request.options.get_or_default())?;
        Ok(Plan {
            role: spec.role()?,
            gpu: spec.gpu()?,
            hooks,
            bundle,
            spec,
            stdio,
            request,
            config,
            own: None,
        })
    }

    /// That of a sandbox which is no container: nobody has its streams, and no GPU is its.
    pub(super) fn of_sandbox(
        request: CreateTaskRequest,
        own: spec::sandbox::Sandbox,
        config: Option<PathBuf>,
    ) -> Result<Plan> {
        names::check_id("sandbox id", &request.id)?;
        own.spec.refuse_host_things()?;
        Ok(Plan {
            role: Role::Sandbox,
            gpu: None,
            hooks: Hooks::default(),
            bundle: PathBuf::from(&request.bundle),
            spec: own.spec.clone(),
            stdio: Stdio::default(),
            request,
            config,
            own: Some(own),
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.request.id
    }
}
