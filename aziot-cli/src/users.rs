//! Users of the system, and what they may read.

use std::ffi::CString;
use std::fmt;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aziot_daemon::paths::{Root, Service};

use crate::failure::Failure;

/// Permission bits, as for others.
const READ: u32 = 4;
const SEARCH: u32 = 1;

/// A user that files are made for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// Name, for messages.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one included.
    pub groups: Vec<u32>,
}

/// The user of each service.
pub struct ServiceUsers([User; 4]);

impl ServiceUsers {
    /// The user that `service` runs as.
    pub fn of(&self, service: Service) -> &User {
        let [keyd, certd, identityd, tpmd] = &self.0;
        match service {
            Service::Keyd => keyd,
            Service::Certd => certd,
            Service::Identityd => identityd,
            Service::Tpmd => tpmd,
        }
    }

    /// Looks the users up. Under a moved root, or without privilege, the current user stands for all of them.
    ///
    /// # Errors
    ///
    /// A user does not exist.
    pub fn query(root: &Root) -> Result<Self, Failure> {
        if root.is_moved() || !is_root() {
            let current = User::current();
            return Ok(Self(Service::ALL.map(|_| current.clone())));
        }
        let [keyd, certd, identityd, tpmd] =
            Service::ALL.map(|service| User::named(service.user()));
        Ok(Self([keyd?, certd?, identityd?, tpmd?]))
    }
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl User {
    /// The user this process runs as.
    pub fn current() -> Self {
        let (uid, gid) = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        let mut groups = vec![gid];
        groups.extend(
            rustix::process::getgroups()
                .unwrap_or_default()
                .iter()
                .map(|gid| gid.as_raw()),
        );
        Self {
            name: format!("with uid {uid}"),
            uid,
            gid,
            groups,
        }
    }

    fn named(name: &str) -> Result<Self, Failure> {
        let message = || format!("could not query {name} user information");
        let (uid, gid) = lookup(name)
            .map_err(|error| Failure::caused(message(), &error))?
            .ok_or_else(|| {
                let hint = "there is no such user; the package of the services creates it";
                Failure::listed(message(), [hint])
            })?;
        Ok(Self {
            name: name.into(),
            uid,
            gid,
            groups: group_list(name, gid),
        })
    }

    /// Whether this user can pass through the directory `path`, as far as its own mode goes.
    pub fn can_pass(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|metadata| self.may(&metadata, SEARCH))
    }

    /// Whether the mode grants the permission bits `needed` to this user.
    fn may(&self, metadata: &fs::Metadata, needed: u32) -> bool {
        let shift = if metadata.uid() == self.uid {
            6
        } else if self.groups.contains(&metadata.gid()) {
            3
        } else {
            0
        };
        self.uid == 0 || (metadata.mode() >> shift) & needed == needed
    }

    /// Checks that this user can read the file `path`, by owner, group and mode of it and of its directories.
    ///
    /// # Errors
    ///
    /// The first file or directory in the way.
    pub fn can_read(&self, path: &Path) -> Result<(), Unreadable> {
        let mut ancestors: Vec<&Path> = path.ancestors().collect();
        ancestors.reverse();
        for ancestor in ancestors {
            if ancestor.as_os_str().is_empty() {
                continue;
            }
            let needed = if ancestor == path { READ } else { SEARCH };
            let refuse = |why| Unreadable {
                path: ancestor.into(),
                user: self.clone(),
                why,
            };
            let metadata = fs::metadata(ancestor).map_err(|error| refuse(Why::Io(error)))?;
            if !self.may(&metadata, needed) {
                return Err(refuse(Why::Mode));
            }
        }
        Ok(())
    }
}

/// A file that a user cannot read.
#[derive(Debug)]
pub struct Unreadable {
    path: PathBuf,
    user: User,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Mode,
    Io(io::Error),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        let User { name, uid, gid, .. } = &self.user;
        match &self.why {
            Why::Mode => write!(
                f,
                "{path} is not readable by user {name} (uid {uid}, gid {gid}), see \
                 https://aka.ms/iotedge/cert-permissions"
            ),
            Why::Io(error) => write!(f, "{path}: {error}"),
        }
    }
}

/// User id and primary group of the user `name`; `None` if there is no such user.
#[allow(unsafe_code)]
fn lookup(name: &str) -> io::Result<Option<(u32, u32)>> {
    let Ok(name) = CString::new(name) else {
        return Ok(None);
    };
    let mut buffer: Vec<libc::c_char> = vec![0; 1024];
    loop {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut result = std::ptr::null_mut();
        // SAFETY: all pointers are to live memory of the stated size; the name ends with a NUL.
        let status = unsafe {
            libc::getpwnam_r(
                name.as_ptr(),
                entry.as_mut_ptr(),
                buffer.as_mut_ptr(),
                buffer.len(),
                &raw mut result,
            )
        };
        match status {
            0 if result.is_null() => return Ok(None),
            0 => {
                // SAFETY: the call succeeded and found an entry, so it is initialised.
                let entry = unsafe { entry.assume_init() };
                return Ok(Some((entry.pw_uid, entry.pw_gid)));
            }
            libc::ERANGE if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 2, 0),
            // Some databases answer these for a name they do not know.
            libc::ENOENT | libc::ESRCH => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// All groups of the user `name`, whose primary group is `gid`.
#[allow(unsafe_code)]
fn group_list(name: &str, gid: u32) -> Vec<u32> {
    let Ok(name) = CString::new(name) else {
        return vec![gid];
    };
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut count = libc::c_int::try_from(groups.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the list has room for `count` entries; the name ends with a NUL.
        let status =
            unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        let found = usize::try_from(count).unwrap_or(0);
        if status >= 0 {
            groups.truncate(found);
            return groups;
        }
        if found <= groups.len() || found > 1 << 16 {
            return vec![gid];
        }
        groups.resize(found, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn users_are_found_by_name() {
        assert_eq!(lookup("root").unwrap(), Some((0, 0)));
        assert_eq!(lookup("no-such-user-here").unwrap(), None);
        assert_eq!(lookup("a\0b").unwrap(), None);
        assert!(group_list("root", 0).contains(&0));
        let failure = User::named("no-such-user-here").unwrap_err().to_string();
        assert!(
            failure.starts_with("could not query no-such-user-here user information"),
            "{failure}"
        );
    }

    #[test]
    fn readability_follows_owner_group_and_others() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let file = directory.path().join("f");
        fs::write(&file, "").unwrap();
        let metadata = fs::metadata(&file).unwrap();
        let (owner, group) = (metadata.uid(), metadata.gid());
        // Not 0, for which everything is readable.
        let user = |uid, groups: &[u32]| User {
            name: "u".into(),
            uid,
            gid: 1,
            groups: groups.into(),
        };
        let can = |mode, user: &User| {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            user.can_read(&file).is_ok()
        };
        let stranger = user(owner + 4242, &[group + 4242]);
        let member = user(owner + 4242, &[group + 4242, group]);
        assert!(can(0o604, &stranger) && !can(0o640, &stranger));
        assert!(can(0o640, &member) && !can(0o604, &member));
        let missing = stranger
            .can_read(&directory.path().join("missing"))
            .unwrap_err()
            .to_string();
        assert!(
            missing.ends_with("missing: No such file or directory (os error 2)"),
            "{missing}"
        );
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let text = stranger.can_read(&file).unwrap_err().to_string();
        assert!(text.contains(" is not readable by user u (uid "), "{text}");
        assert!(
            text.starts_with(directory.path().to_str().unwrap()) && !text.contains("/f "),
            "{text}"
        );
    }
}
