//! Running `aziotctl` in a directory of its own.

// Each test program uses a part of this.
#![allow(dead_code)]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A throw-away root with the directories of a fresh installation.
pub struct Sandbox {
    directory: tempfile::TempDir,
}

/// What a run of the program left.
#[derive(Debug)]
pub struct Run {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Sandbox {
    pub fn new() -> Self {
        let sandbox = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        for service in ["keyd", "certd", "identityd", "tpmd"] {
            fs::create_dir_all(sandbox.path(&format!("etc/aziot/{service}/config.d"))).unwrap();
        }
        sandbox
    }

    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    /// A path below the root.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root().join(relative)
    }

    pub fn write(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn read(&self, relative: &str) -> String {
        fs::read_to_string(self.path(relative)).unwrap()
    }

    /// Permission bits of a file.
    pub fn mode(&self, relative: &str) -> u32 {
        fs::symlink_metadata(self.path(relative)).unwrap().mode() & 0o7777
    }

    /// The program, under this root.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aziotctl"));
        command
            .args(arguments)
            .env("AZIOT_ROOT", self.root())
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        Run::of(&mut self.command(arguments))
    }

    /// Installs a stand-in for a program, as a shell script, and answers a search path that finds it.
    pub fn stub(&self, name: &str, script: &str) -> String {
        let path = self.path("bin").join(name);
        self.write(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        format!(
            "{}:{}",
            self.path("bin").display(),
            std::env::var("PATH").unwrap()
        )
    }

    /// Everything below the root: kind, mode and content by path.
    pub fn tree(&self) -> BTreeMap<PathBuf, String> {
        fn walk(directory: &Path, tree: &mut BTreeMap<PathBuf, String>) {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let metadata = fs::symlink_metadata(&path).unwrap();
                let content = if metadata.is_dir() {
                    walk(&path, tree);
                    "directory".into()
                } else if let Ok(target) = fs::read_link(&path) {
                    format!("-> {}", target.display())
                } else {
                    format!("{:?}", fs::read(&path).unwrap())
                };
                let line = format!(
                    "{:o} {}:{} {content}",
                    metadata.mode(),
                    metadata.uid(),
                    metadata.gid()
                );
                tree.insert(path, line);
            }
        }
        let mut tree = BTreeMap::new();
        walk(self.root(), &mut tree);
        tree
    }
}

impl Run {
    pub fn of(command: &mut Command) -> Self {
        Self::from(command.output().unwrap())
    }

    /// Runs with text on standard input.
    pub fn with_input(command: &mut Command, input: &str) -> Self {
        let command = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        Self::from(child.wait_with_output().unwrap())
    }

    #[track_caller]
    pub fn succeeds(self) -> Self {
        assert_eq!(self.status, 0, "{self:?}");
        self
    }

    /// Fails with status 1, and everything in `parts` on standard error.
    #[track_caller]
    pub fn fails_with(self, parts: &[&str]) -> Self {
        assert_eq!(self.status, 1, "{self:?}");
        for part in parts {
            assert!(
                self.stderr.contains(part),
                "`{part}` is not in:\n{}",
                self.stderr
            );
        }
        self
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
