//! One region as a process: how it is started, signalled and laid to rest.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{ExitStatus, Stdio},
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};

/// How to start a region.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// The region's own; its log and the file that names its process are in it.
    pub(crate) folder: PathBuf,
    /// A log that has grown over it is put aside as `log.1`, in the place of the one before.
    pub(crate) log_bytes_max: u64,
}

/// A running region. Dropping it lets go of it: it notices, and drains.
pub(crate) struct Process {
    child: Child,
    pid_file: PathBuf,
    /// Ends with this process, however it ends.
    _lifeline: Option<ChildStdin>,
}

impl Launch {
    /// Starts the process, in a group of its own: the terminal's Ctrl-C is for the supervisor alone.
    ///
    /// # Errors
    /// When the folder cannot be written or the program cannot be started.
    pub(crate) fn spawn(&self) -> Result<Process> {
        let opened = fs::create_dir_all(&self.folder).and_then(|()| {
            let log = fs::File::options().create(true).append(true).open(self.log_path())?;
            Ok((log.try_clone()?, log))
        });
        let (stdout, stderr) =
            opened.with_context(|| format!("the folder {} cannot be written", self.folder.display()))?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0);
        let mut child = command
            .spawn()
            .with_context(|| format!("{} cannot be started", self.program.display()))?;
        let lifeline = child.stdin.take();
        let process = Process {
            child,
            pid_file: self.folder.join("pid"),
            _lifeline: lifeline,
        };
        process
            .write_pid()
            .with_context(|| format!("{} cannot be written", process.pid_file.display()))?;
        Ok(process)
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Puts a log aside that has grown too long. The process goes on writing to the same file, which is then empty.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) async fn bound_log(&self) -> io::Result<()> {
        let log = self.log_path();
        if tokio::fs::metadata(&log).await?.len() <= self.log_bytes_max {
            return Ok(());
        }
        tokio::fs::copy(&log, log.with_extension("1")).await?;
        let file = tokio::fs::File::options().write(true).open(&log).await?;
        file.set_len(0).await
    }

    /// The last line that the process has written, if it has written any.
    pub(crate) fn last_words(&self) -> Option<String> {
        const LOOKED_AT_BYTES: u64 = 4_096;
        let mut file = fs::File::open(self.log_path()).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOOKED_AT_BYTES)))
            .ok()?;
        let mut bytes = Vec::new();
        file.take(LOOKED_AT_BYTES).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(line.trim().to_owned())
    }
}

impl Process {
    /// None once it has ended.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end. May be dropped and asked for again.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Sends a signal; a process that has ended already gets none, nor does whoever has its number now.
    ///
    /// # Errors
    /// When there is no such process any more.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let pid = pid.ok_or(io::ErrorKind::NotFound)?;
        Ok(kill_process(pid, signal)?)
    }

    /// Asks it to drain, also if it is frozen.
    pub(crate) fn ask_to_end(&self) {
        for signal in [Signal::TERM, Signal::CONT] {
            // One that has just ended needs no asking.
            let _ = self.signal(signal);
        }
    }

    fn write_pid(&self) -> io::Result<()> {
        let draft = self.pid_file.with_extension("new");
        fs::write(&draft, format!("{}\n", self.pid().unwrap_or_default()))?;
        fs::rename(draft, &self.pid_file)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.pid_file);
    }
}

/// How a process ended, in words.
pub(crate) fn in_words(status: ExitStatus) -> String {
    let signal = match (status.code(), status.signal()) {
        (Some(code), _) => return format!("exit code {code}"),
        (None, Some(signal)) => signal,
        (None, None) => return status.to_string(),
    };
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        15 => "SIGTERM",
        _ => return format!("signal {signal}"),
    };
    format!("signal {signal} ({name})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(folder: &std::path::Path, script: &str) -> Launch {
        Launch {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            folder: folder.join("region"),
            log_bytes_max: 1_000,
        }
    }

    #[tokio::test]
    async fn the_pid_file_is_there_as_long_as_the_process_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let launch = shell(folder.path(), "read line");
        let mut process = launch.spawn().unwrap();
        let pid_file = launch.folder.join("pid");
        let written: u32 = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        assert_eq!(Some(written), process.pid());
        process.signal(Signal::KILL).unwrap();
        assert_eq!(in_words(process.ended().await.unwrap()), "signal 9 (SIGKILL)");
        assert!(process.signal(Signal::KILL).is_err());
        drop(process);
        assert!(!pid_file.exists());
    }

    #[tokio::test]
    async fn a_process_that_is_let_go_of_notices() {
        let folder = tempfile::tempdir().unwrap();
        let launch = shell(folder.path(), "cat; echo noticed > \"$0\".done");
        let mut launch = launch;
        launch.arguments.push(folder.path().join("it").into());
        drop(launch.spawn().unwrap());
        let noticed = folder.path().join("it.done");
        for _ in 0..1_000 {
            if noticed.exists() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("it lives on");
    }

    #[tokio::test]
    async fn a_long_log_is_put_aside_and_written_on() {
        let folder = tempfile::tempdir().unwrap();
        let launch = shell(folder.path(), "echo first; read line; echo second; exit 3");
        fs::create_dir_all(&launch.folder).unwrap();
        fs::write(launch.log_path(), "x".repeat(990) + "\n").unwrap();
        launch.bound_log().await.unwrap();
        assert_eq!(fs::metadata(launch.log_path()).unwrap().len(), 991);
        let mut process = launch.spawn().unwrap();
        while launch.last_words().as_deref() != Some("first") {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        fs::write(launch.folder.join("log.1"), "older").unwrap();
        fs::File::options()
            .append(true)
            .open(launch.log_path())
            .and_then(|mut log| io::Write::write_all(&mut log, "y".repeat(10).as_bytes()))
            .unwrap();
        launch.bound_log().await.unwrap();
        assert_eq!(fs::read_to_string(launch.log_path()).unwrap(), "");
        assert_eq!(fs::metadata(launch.folder.join("log.1")).unwrap().len(), 991 + 6 + 10);
        process._lifeline = None;
        assert_eq!(in_words(process.ended().await.unwrap()), "exit code 3");
        assert_eq!(fs::read_to_string(launch.log_path()).unwrap(), "second\n");
        assert_eq!(launch.last_words().as_deref(), Some("second"));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut launch = shell(folder.path(), "");
        launch.program = "/nowhere/antiphon".into();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let error = format!("{:#}", launch.spawn().err().unwrap());
        assert!(error.contains("/nowhere/antiphon"), "{error}");
    }
}
