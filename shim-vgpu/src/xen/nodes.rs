//! One side of a device in xenstore, readable for the other.

use idm::xen::xenstore::{Permissions, Store, XsError};

/// Writes a side's folder and its nodes, each with its permissions: in a transaction, the other side sees all or none.
pub fn write_side(
    nodes: &impl Store,
    dir: &str,
    values: &[(&str, &str)],
    permissions: &Permissions,
) -> Result<(), XsError> {
    nodes.mkdir(dir)?;
    nodes.set_permissions(dir, permissions)?;
    values.iter().try_for_each(|(key, value)| {
        let path = format!("{dir}/{key}");
        nodes.write(&path, value)?;
        nodes.set_permissions(&path, permissions)
    })
}
