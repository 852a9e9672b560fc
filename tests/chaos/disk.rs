//! Disks that can be full: a small file system in memory under the folder of each region.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

const SIZE: &str = "size=192m";
const FILLING: &str = "filling";
const PIECE_BYTES: usize = 1 << 16;

/// The mounted folders, by region. Dropping it unmounts them.
#[derive(Default)]
pub(crate) struct Disks {
    folders: BTreeMap<String, PathBuf>,
}

impl Disks {
    /// Mounts one for each region; None when this process may not.
    pub(crate) fn mount(data: &Path, regions: &[String]) -> Option<Self> {
        let mut disks = Self::default();
        for region in regions {
            let folder = data.join(region);
            fs::create_dir_all(&folder).unwrap();
            let mounted = Command::new("mount")
                .args(["-t", "tmpfs", "-o", SIZE, "antiphon-chaos"])
                .arg(&folder)
                .output();
            if !mounted.is_ok_and(|mounted| mounted.status.success()) {
                return None;
            }
            disks.folders.insert(region.clone(), folder);
        }
        Some(disks)
    }

    /// Leaves no byte free.
    pub(crate) fn fill(&self, region: &str) {
        let mut file = File::create(self.folders[region].join(FILLING)).unwrap();
        let mut piece = vec![b'x'; PIECE_BYTES];
        while !piece.is_empty() {
            match file.write(&piece) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => piece.truncate(piece.len() / 2),
                Err(error) => panic!("the disk of {region} cannot be filled: {error}"),
            }
        }
    }

    pub(crate) fn empty(&self, region: &str) {
        fs::remove_file(self.folders[region].join(FILLING)).unwrap();
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for folder in self.folders.values() {
            // Lazily: a process that is just ending may hold it.
            let _ = Command::new("umount").arg("-l").arg(folder).status();
        }
    }
}
