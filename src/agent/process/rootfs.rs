//! What a container sees of the file system: this machine's, with its own mounts, in a namespace of its own.
//!
//! Enters: mounts. Leaves: this process in a new mount namespace where they are. A mount point that is not there is made
//! without touching the machine's disk: the directory that lacks it is covered by one in memory, in which everything else
//! is mounted where it was. Can go wrong: namespaces are refused; a source is missing.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, OFlags, StatVfsMountFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::mount::{
    mount, mount_bind_recursive, mount_change, mount_remount, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, getegid, geteuid, pivot_root};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::spec::{Mount, Tmpfs};

/// A directory with more than this is not covered.
const ENTRIES_MAX: usize = 4096;

/// Enters a mount namespace of its own; where root may not, or is not there, in a user namespace where this user is
/// `inside`, if that is `allowed`.
///
/// # Errors
/// The kernel's: namespaces are not for everyone on every machine.
pub(super) fn unshare(
    hostname: Option<&str>,
    inside: Option<(u32, u32)>,
    allowed: bool,
) -> Result<(), String> {
    let mut flags = UnshareFlags::NEWNS;
    if hostname.is_some() {
        flags |= UnshareFlags::NEWUTS;
    }
    let refused = |e: Errno| format!("no namespace of its own: {e}");
    let as_root = if geteuid().is_root() { unshare_alone(flags) } else { Err(Errno::PERM) };
    match as_root {
        Ok(()) => {}
        Err(Errno::PERM) if allowed => {
            let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
            let (inside_uid, inside_gid) = inside.unwrap_or((uid, gid));
            unshare_alone(flags | UnshareFlags::NEWUSER).map_err(refused)?;
            let map = |file: &str, text: String| {
                fs::write(file, text).map_err(|e| format!("cannot write {file}: {e}"))
            };
            map("/proc/self/setgroups", "deny".to_owned())?;
            map("/proc/self/uid_map", format!("{inside_uid} {uid} 1"))?;
            map("/proc/self/gid_map", format!("{inside_gid} {gid} 1"))?;
        }
        Err(e) => return Err(refused(e)),
    }
    if let Some(name) = hostname {
        rustix::system::sethostname(name.as_bytes()).map_err(|e| format!("cannot set the host name: {e}"))?;
    }
    // What is mounted here stays here; what the machine mounts later is seen.
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM)
        .map_err(|e| format!("cannot separate the mounts: {e}"))
}

/// Whether this process has a user namespace of one user, as [`unshare`] makes them.
pub(super) fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_ascii_whitespace().nth(2) == Some("1")
}

fn unshare_alone(flags: UnshareFlags) -> rustix::io::Result<()> {
    // Deprecated for what it does to file descriptors of other threads: there are none, and they are not asked for.
    #[expect(deprecated, reason = "file descriptors are not unshared, and this process has one thread")]
    rustix::thread::unshare(flags)
}

/// Enters the namespaces of a container's process.
///
/// # Errors
/// It has gone.
pub(super) fn join(pid: i32) -> Result<(), String> {
    let link = |kind: &str| format!("/proc/{pid}/ns/{kind}");
    let failed =
        |kind: &str, e: &dyn std::fmt::Display| format!("cannot join the {kind} namespace of {pid}: {e}");
    // The user namespace first: it holds the right to enter the others.
    for (kind, namespace) in [
        ("user", LinkNameSpaceType::User),
        ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
        ("mnt", LinkNameSpaceType::Mount),
    ] {
        let own = fs::read_link(format!("/proc/self/ns/{kind}")).map_err(|e| failed(kind, &e))?;
        let theirs = fs::read_link(link(kind)).map_err(|e| failed(kind, &e))?;
        if own != theirs {
            let file = File::open(link(kind)).map_err(|e| failed(kind, &e))?;
            use std::os::fd::AsFd;
            move_into_link_name_space(file.as_fd(), Some(namespace)).map_err(|e| failed(kind, &e))?;
        }
    }
    chdir("/").map_err(|e| format!("cannot enter /: {e}"))
}

/// Puts mounts in place, and makes `needed` directories. `scratch` is an empty directory to build in.
///
/// # Errors
/// Which mount, and why.
pub(super) fn build(mounts: &[Mount], needed: &[&Path], scratch: &Path) -> Result<(), String> {
    let mut sources = Vec::new();
    for mount in mounts {
        let failed = |e: io::Error| {
            let source = mount.source.as_deref().unwrap_or(Path::new("tmpfs"));
            format!("cannot mount {} at {}: {e}", source.display(), mount.target.display())
        };
        sources.push(match &mount.source {
            Some(path) => Some(Source::take(path).map_err(failed)?),
            None => None,
        });
    }
    let mut tree = Tree { own: BTreeSet::new(), scratch };
    let targets = mounts.iter().map(|m| m.target.as_path()).chain(needed.iter().copied());
    let below_root = |p: &Path| p.components().nth(1).map(|first| Path::new("/").join(first));
    if targets.filter_map(below_root).any(|top| !top.exists()) {
        tree.replace_root().map_err(|e| format!("cannot build a root directory: {e}"))?;
    }
    for (spec, source) in mounts.iter().zip(&sources) {
        let failed = |e: io::Error| {
            let from = spec.source.as_deref().unwrap_or(Path::new("tmpfs"));
            format!("cannot mount {} at {}: {e}", from.display(), spec.target.display())
        };
        let is_dir = source.as_ref().is_none_or(|s| s.is_dir);
        tree.ensure(&spec.target, is_dir).map_err(failed)?;
        match source {
            Some(source) => source.put(&spec.target).map_err(failed)?,
            None => tmpfs(&spec.target, &spec.tmpfs).map_err(failed)?,
        }
        if spec.read_only {
            read_only(&spec.target).map_err(failed)?;
        }
    }
    for dir in needed {
        tree.ensure(dir, true).map_err(|e| format!("mkdir {}: {e}", dir.display()))?;
    }
    Ok(())
}

/// What is to be mounted, taken before later mounts hide the way to it.
struct Source {
    is_dir: bool,
    from: From,
}

enum From {
    /// A mount without a place.
    Mount(OwnedFd),
    /// Before Linux 5.2 there are none.
    Path(PathBuf),
}

impl Source {
    fn take(path: &Path) -> io::Result<Source> {
        let is_dir = fs::metadata(path)?.is_dir();
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        let from = match open_tree(CWD, path, flags) {
            Ok(mount) => From::Mount(mount),
            Err(Errno::NOSYS) => From::Path(path.to_owned()),
            Err(e) => return Err(e.into()),
        };
        Ok(Source { is_dir, from })
    }

    fn put(&self, target: &Path) -> io::Result<()> {
        match &self.from {
            From::Mount(mount) => {
                // `/var/run` is a link on most machines.
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
                move_mount(mount, "", CWD, target, flags)?;
            }
            From::Path(path) => mount_bind_recursive(path, target)?,
        }
        Ok(())
    }
}

/// A file or directory, held open without reading it.
struct Handle {
    file: File,
    meta: Metadata,
}

impl Handle {
    fn open(path: &Path) -> io::Result<Handle> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
        let meta = file.metadata()?;
        Ok(Handle { file, meta })
    }

    fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd;
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

/// The directories that this namespace has in memory.
struct Tree<'a> {
    own: BTreeSet<PathBuf>,
    scratch: &'a Path,
}

impl Tree<'_> {
    /// Makes `/` a directory in memory, in which everything is mounted where it was.
    fn replace_root(&mut self) -> io::Result<()> {
        let old = Handle::open(Path::new("/"))?;
        tmpfs(self.scratch, &Tmpfs { mode: Some(0o755), exec: true, ..Tmpfs::default() })?;
        // The directory that holds the scratch comes first: its copy holds nothing of the copy yet.
        let scratch = self.scratch.canonicalize()?;
        let first = scratch.components().nth(1).map(|c| c.as_os_str().to_owned());
        fill(&scratch, &old, first.as_deref())?;
        let inner = scratch.join(scratch.strip_prefix("/").unwrap_or(&scratch));
        // That copy of the scratch is of no use.
        let _none = unmount(&inner, UnmountFlags::DETACH);
        chdir(&scratch)?;
        pivot_root(".", ".")?;
        // The old root lies on top of the new one now.
        unmount(".", UnmountFlags::DETACH)?;
        chdir("/")?;
        self.own.insert(PathBuf::from("/"));
        Ok(())
    }

    /// Sees to it that a path is there, as a directory or a file.
    fn ensure(&mut self, path: &Path, is_dir: bool) -> io::Result<()> {
        let mut at = PathBuf::from("/");
        let parts: Vec<_> = path.strip_prefix("/").unwrap_or(path).components().collect();
        for (n, part) in parts.iter().enumerate() {
            let parent = at.canonicalize()?;
            at.push(part);
            if at.exists() {
                continue;
            }
            if !self.own.contains(&parent) {
                self.cover(&parent)?;
            }
            let new = parent.join(part);
            if n + 1 < parts.len() || is_dir {
                fs::create_dir(&new)?;
                self.own.insert(new);
            } else {
                File::create(&new)?;
            }
        }
        Ok(())
    }

    /// Puts a directory in memory over one on disk.
    fn cover(&mut self, dir: &Path) -> io::Result<()> {
        let old = Handle::open(dir)?;
        tmpfs(dir, &Tmpfs { mode: Some(old.meta.mode() & 0o7777), exec: true, ..Tmpfs::default() })?;
        // Without the privilege it belongs to whoever made it.
        let _kept =
            rustix::fs::chown(dir, Some(Uid::from_raw(old.meta.uid())), Some(Gid::from_raw(old.meta.gid())));
        fill(dir, &old, None)?;
        self.own.insert(dir.to_owned());
        Ok(())
    }
}

/// Mounts everything that is in `old` at the same name in `new`.
fn fill(new: &Path, old: &Handle, first: Option<&std::ffi::OsStr>) -> io::Result<()> {
    let mut names: Vec<_> =
        fs::read_dir(old.path())?.map(|e| e.map(|e| e.file_name())).collect::<io::Result<_>>()?;
    if names.len() > ENTRIES_MAX {
        return Err(io::Error::other(format!(
            "it holds more than {ENTRIES_MAX} entries; make the mount point by hand"
        )));
    }
    names.sort_by_key(|n| Some(n.as_os_str()) != first);
    for name in names {
        let (from, to) = (old.path().join(&name), new.join(&name));
        let Ok(kind) = fs::symlink_metadata(&from).map(|m| m.file_type()) else { continue };
        if kind.is_symlink() {
            symlink(fs::read_link(&from)?, &to)?;
            continue;
        }
        if kind.is_dir() {
            fs::create_dir(&to)?
        } else {
            drop(File::create(&to)?)
        }
        mount_bind_recursive(&from, &to)?;
    }
    Ok(())
}

fn tmpfs(at: &Path, tmpfs: &Tmpfs) -> io::Result<()> {
    let size = tmpfs.size.map(|s| format!(",size={s}")).unwrap_or_default();
    let data = std::ffi::CString::new(format!("mode={:o}{size}", tmpfs.mode.unwrap_or(0o1777)))?;
    let mut flags = MountFlags::empty();
    for (allowed, flag) in
        [(tmpfs.exec, MountFlags::NOEXEC), (tmpfs.suid, MountFlags::NOSUID), (tmpfs.dev, MountFlags::NODEV)]
    {
        if !allowed {
            flags |= flag;
        }
    }
    Ok(mount("tmpfs", at, "tmpfs", flags, data.as_c_str())?)
}

/// Forbids writing at one mount. What the machine forbids there already must be said again.
fn read_only(at: &Path) -> io::Result<()> {
    let now = rustix::fs::statvfs(at)?.f_flag;
    let mut flags = MountFlags::BIND | MountFlags::RDONLY;
    for (have, flag) in [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ] {
        if now.contains(have) {
            flags |= flag;
        }
    }
    Ok(mount_remount(at, flags, c"")?)
}

/// A directory for `build` to build in.
///
/// # Errors
/// The disk's.
pub(super) fn scratch(dir: &Path) -> io::Result<PathBuf> {
    let scratch = dir.join("root");
    match fs::create_dir(&scratch) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    fs::set_permissions(&scratch, fs::Permissions::from_mode(0o700))?;
    Ok(scratch)
}
