//! A volume as kubelet keeps it, a ConfigMap's or a Secret's: for tests that change one while programs have it.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

/// See the module.
#[derive(Debug)]
pub struct Volume(PathBuf);

impl Volume {
    /// The folder of the volume, which is there.
    #[must_use]
    pub fn at(folder: &Path) -> Volume {
        Volume(folder.to_owned())
    }

    /// Writes these files, which may be in folders, in the place of those that there are. Source: Kubernetes,
    /// `pkg/volume/util/atomic_writer.go`, `Write`; a name of a version that is the time there is given here.
    ///
    /// # Errors
    /// As the calls it consists of.
    pub fn write(&self, version: &str, files: &[(&str, &[u8])]) -> io::Result<()> {
        let old = fs::read_link(self.0.join("..data")).ok();
        let folder = self.0.join(format!("..{version}"));
        DirBuilder::new().mode(0o700).create(&folder)?;
        fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
        for (name, content) in files {
            let file = folder.join(name);
            fs::create_dir_all(file.parent().unwrap_or(&folder))?;
            fs::write(file, content)?;
        }
        symlink(format!("..{version}"), self.0.join("..data_tmp"))?;
        fs::rename(self.0.join("..data_tmp"), self.0.join("..data"))?;
        let names: Vec<&str> = files.iter().filter_map(|(name, _)| name.split('/').next()).collect();
        for name in &names {
            if fs::symlink_metadata(self.0.join(name)).is_err() {
                symlink(format!("..data/{name}"), self.0.join(name))?;
            }
        }
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            let stays = names.iter().any(|stays| name == *stays);
            if !stays && !name.as_encoded_bytes().starts_with(b"..") {
                fs::remove_file(self.0.join(name))?;
            }
        }
        old.map_or(Ok(()), |old| fs::remove_dir_all(self.0.join(old)))
    }
}
