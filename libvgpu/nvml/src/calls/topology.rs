//! Where devices are to each other. Links between GPUs are not told to a zone.

use crate::abi::{Device, Out, exports};
use crate::result::NvmlError;
use crate::session::session;
use crate::structs::{Fabric, FabricV2, FabricV3, version_of};

/// `nvmlGpuTopologyLevel_t`: the same device; the same system, and no more is known.
const SAME: u32 = 0;
const SYSTEM: u32 = 50;
/// `nvmlGpuP2PCapsIndex_t`: reads and writes are the first two, and it ends before this.
const P2P_MEMORY: u32 = 2;
const P2P_KINDS: u32 = 5;
/// `nvmlGpuP2PStatus_t`.
const P2P_OK: u32 = 0;
const P2P_NOT_SUPPORTED: u32 = 5;
/// `NVML_GPU_FABRIC_STATE_NOT_SUPPORTED`.
const NO_FABRIC: u8 = 0;

exports! {
    fn nvmlDeviceGetTopologyCommonAncestor(one: Device, two: Device, place: Out<u32>) {
        let session = session()?;
        session.device(one)?;
        session.device(two)?;
        place.set(if one == two { SAME } else { SYSTEM })
    }

    /// None is near.
    fn nvmlDeviceGetTopologyNearestGpus(device: Device, _level: u32, count: Out<u32>, _list: Out<Device>) {
        session()?.device(device)?;
        count.set(0)
    }

    fn nvmlDeviceOnSameBoard(one: Device, two: Device, place: Out<i32>) {
        let session = session()?;
        session.device(one)?;
        session.device(two)?;
        place.set((one == two).into())
    }

    /// Each device reaches itself, and others' memory as CUDA says; by which way says `link.rs`. NCCL asks for every pair, one of a device with
    /// itself too, and takes any other result than success for a broken system.
    fn nvmlDeviceGetP2PStatus(one: Device, two: Device, kind: u32, place: Out<u32>) {
        let session = session()?;
        let ((_, from), (index, _)) = (session.device(one)?, session.device(two)?);
        if kind >= P2P_KINDS {
            return Err(NvmlError::INVALID_ARGUMENT);
        }
        let reaches = kind < P2P_MEMORY && u32::try_from(index).is_ok_and(|index| from.peers >> index & 1 == 1);
        place.set(if one == two || reaches { P2P_OK } else { P2P_NOT_SUPPORTED })
    }

    /// "Not supported" is the state and not the result: PyTorch takes any other result than success for a defect.
    fn nvmlDeviceGetGpuFabricInfo(device: Device, place: Out<Fabric>) {
        session()?.device(device)?;
        place.set(Fabric { cluster: [0; 16], status: 0, clique: 0, state: NO_FABRIC })
    }

    fn nvmlDeviceGetGpuFabricInfoV(device: Device, place: Out<FabricV3>) {
        session()?.device(device)?;
        // Each version begins with its number, and the second may be shorter than this parameter's type.
        let version = place.cast::<u32>().get()?;
        let (cluster, status, clique, state, health) = ([0; 16], 0, 0, NO_FABRIC, 0);
        if version == version_of::<FabricV2>(2) {
            return place.cast().set(FabricV2 { version, cluster, status, clique, state, health });
        }
        if version == version_of::<FabricV3>(3) {
            return place.set(FabricV3 { version, cluster, status, clique, state, health, summary: 0 });
        }
        Err(NvmlError::ARGUMENT_VERSION_MISMATCH)
    }
}
