//! A filesystem that is not what it says: files with more or fewer bytes than their size, names that go or become something
//! else while somebody looks. Spoken over `/dev/fuse` by hand, as far as reading takes it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use crate::mount::Skip;

/// What a name stands for.
#[derive(Clone, Debug)]
pub enum Node {
    /// A file whose inode says one size while reading gives these bytes.
    File {
        /// The size that `stat` shows.
        says: u64,
        /// What reading gives.
        bytes: Vec<u8>,
    },
    /// An empty directory.
    Directory,
    /// A symlink.
    Symlink(&'static str),
    /// Nothing: it has gone.
    Gone,
}

/// A filesystem with one directory, mounted until this is dropped.
#[derive(Debug)]
pub struct FuseMount {
    _home: TempDir,
    point: PathBuf,
}

impl FuseMount {
    /// Mounts one with these names. Each is looked up again for each path, and is the first node at the first look, the
    /// second at the second, and the last one from then on. All are listed.
    ///
    /// # Errors
    /// If this machine can't: says why.
    pub fn new(names: Vec<(&'static str, Vec<Node>)>) -> Result<Self, Skip> {
        let skip = |what: &str, error: std::io::Error| Skip::new(format!("{what}: {error}"));
        let home = TempDir::with_prefix("testkit-fuse-").map_err(|e| skip("a directory", e))?;
        let point = home.path().join("mounted");
        std::fs::create_dir(&point).map_err(|error| skip("the mount point", error))?;
        let device = File::options().read(true).write(true).open("/dev/fuse");
        let device = device.map_err(|error| skip("/dev/fuse", error))?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            device.as_raw_fd()
        );
        let options = std::ffi::CString::new(options).unwrap_or_default();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("testkit", &point, "fuse", flags, options.as_c_str())
            .map_err(|error| skip("mounting", error.into()))?;
        let names = names.into_iter().map(|(name, nodes)| Name {
            name,
            nodes,
            looks: 0,
        });
        let server = Server {
            device,
            names: names.collect(),
        };
        thread::spawn(move || server.run());
        Ok(Self { _home: home, point })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.point
    }
}

impl Drop for FuseMount {
    fn drop(&mut self) {
        let _ = unmount(&self.point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
}

struct Name {
    name: &'static str,
    nodes: Vec<Node>,
    looks: usize,
}

struct Server {
    device: File,
    names: Vec<Name>,
}

const ROOT: u64 = 1;
/// Numbers of nodes: this many for each name, and one for each of its nodes.
const STRIDE: u64 = 100;
const DIRECT_IO: u32 = 1;

type Answer = Result<Vec<u8>, i32>;

impl Server {
    /// Answers until the filesystem is unmounted.
    fn run(mut self) {
        let mut request = vec![0; 1 << 20];
        while let Ok(len) = self.device.read(&mut request) {
            let (opcode, unique, node) = (
                u32_at(&request, 4),
                u64_at(&request, 8),
                u64_at(&request, 16),
            );
            let body = request[40..len].to_vec();
            if let Some(answer) = self.answer(opcode, node, &body) {
                let (error, bytes) = match answer {
                    Ok(bytes) => (0, bytes),
                    Err(error) => (-error, Vec::new()),
                };
                let mut reply = Vec::new();
                reply.extend((16 + bytes.len() as u32).to_ne_bytes());
                reply.extend(error.to_ne_bytes());
                reply.extend(unique.to_ne_bytes());
                reply.extend(bytes);
                // Whoever asked may have been interrupted meanwhile.
                let _ = self.device.write_all(&reply);
            }
        }
    }

    /// By the numbers of `linux/fuse.h`; `None` where no answer is expected.
    fn answer(&mut self, opcode: u32, node: u64, body: &[u8]) -> Option<Answer> {
        Some(match opcode {
            1 => self.look_up(body),
            2 | 36 | 42 => return None,
            3 => self.attributes(node),
            5 => match self.node(node) {
                Some(Node::Symlink(target)) => Ok(target.as_bytes().to_vec()),
                _ => Err(libc::EINVAL),
            },
            14 | 27 => {
                let flags = if opcode == 14 { DIRECT_IO } else { 0 };
                Ok([0_u32, 0, flags, 0].map(u32::to_ne_bytes).concat())
            }
            15 => self.read(node, body),
            18 | 25 | 29 | 38 => Ok(Vec::new()),
            26 => Ok(greeting()),
            28 => Ok(self.list(node, body)),
            _ => Err(libc::ENOSYS),
        })
    }

    fn node(&self, number: u64) -> Option<&Node> {
        let name = self
            .names
            .get(usize::try_from(number / STRIDE).ok()?.checked_sub(1)?)?;
        name.nodes.get(usize::try_from(number % STRIDE).ok()?)
    }

    fn look_up(&mut self, body: &[u8]) -> Answer {
        let wanted = body.split(|byte| *byte == 0).next().unwrap_or_default();
        let index = self
            .names
            .iter()
            .position(|name| name.name.as_bytes() == wanted)
            .ok_or(libc::ENOENT)?;
        let name = &mut self.names[index];
        let look = name.looks.min(name.nodes.len() - 1);
        name.looks += 1;
        let number = (index as u64 + 1) * STRIDE + look as u64;
        let attributes = self.inode(number)?;
        // Valid for no time at all: each path asks again.
        let mut entry = [number, 0, 0, 0, 0].map(u64::to_ne_bytes).concat();
        entry.extend(attributes);
        Ok(entry)
    }

    fn attributes(&self, node: u64) -> Answer {
        let mut answer = [0_u64, 0].map(u64::to_ne_bytes).concat();
        answer.extend(self.inode(node)?);
        Ok(answer)
    }

    /// A `fuse_attr`.
    fn inode(&self, number: u64) -> Answer {
        let (mode, size) = match self.node(number) {
            _ if number == ROOT => (libc::S_IFDIR | 0o755, 0),
            Some(Node::File { says, .. }) => (libc::S_IFREG | 0o644, *says),
            Some(Node::Directory) => (libc::S_IFDIR | 0o755, 0),
            Some(Node::Symlink(target)) => (libc::S_IFLNK | 0o777, target.len() as u64),
            Some(Node::Gone) | None => return Err(libc::ENOENT),
        };
        let time = 1_600_000_000_u64;
        let mut bytes = [number, size, size.div_ceil(512), time, time, time]
            .map(u64::to_ne_bytes)
            .concat();
        let nanoseconds = [0; 3];
        let (links, owner, device, block, flags) = (1, [0; 2], 0, 4096, 0);
        let words = [
            &nanoseconds[..],
            &[mode, links],
            &owner,
            &[device, block, flags],
        ];
        bytes.extend(words.concat().into_iter().flat_map(u32::to_ne_bytes));
        Ok(bytes)
    }

    fn read(&self, node: u64, body: &[u8]) -> Answer {
        let Some(Node::File { bytes, .. }) = self.node(node) else {
            return Err(libc::EISDIR);
        };
        let from = usize::try_from(u64_at(body, 8)).map_or(bytes.len(), |at| at.min(bytes.len()));
        let to = bytes.len().min(from + u32_at(body, 16) as usize);
        Ok(bytes[from..to].to_vec())
    }

    /// All names at once, which are few.
    fn list(&self, node: u64, body: &[u8]) -> Vec<u8> {
        let mut listed = Vec::new();
        if node != ROOT || u64_at(body, 8) > 0 {
            return listed;
        }
        for (index, name) in self.names.iter().enumerate() {
            let number = (index as u64 + 1) * STRIDE;
            listed.extend([number, index as u64 + 1].map(u64::to_ne_bytes).concat());
            listed.extend([name.name.len() as u32, 0].map(u32::to_ne_bytes).concat());
            listed.extend(name.name.as_bytes());
            listed.resize(listed.len().next_multiple_of(8), 0);
        }
        listed
    }
}

/// A `fuse_init_out` of version 7.31.
fn greeting() -> Vec<u8> {
    let (version, readahead, flags, queues, max_write, granularity) =
        ([7, 31], 1 << 17, 0, 0, 1 << 17, 1);
    let words = [
        version[0],
        version[1],
        readahead,
        flags,
        queues,
        max_write,
        granularity,
    ];
    let mut bytes = words.map(u32::to_ne_bytes).concat();
    bytes.resize(64, 0);
    bytes
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].try_into().map_or(0, u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map_or(0, u64::from_ne_bytes)
}
