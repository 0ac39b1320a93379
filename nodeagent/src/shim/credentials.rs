//! The last steps before a container's program runs: terminal, user, groups, capabilities, system call filter, exec.
//!
//! The same steps serve the first process and every process executed later, so that neither gets more than the other.

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::sys::{self, check};
use super::task::Process;

/// What a process gets beside its [`Process`] description.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// How it is to run.
    pub process: Process,
    /// Compiled system call filters.
    pub filters: Vec<Vec<u8>>,
    /// Where the terminal's master goes.
    pub terminal: Option<RawFd>,
    /// This is the container's first process: it also gets `/dev/console`.
    pub first: bool,
}

/// User and groups of a process, with the home directory.
#[derive(Debug, Default, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    home: Option<String>,
}

impl Launch {
    /// Becomes the program. Returns only when that failed, with the reason for people.
    pub fn run(&self) -> String {
        match self.prepare() {
            Ok(env) => self.exec(&env),
            Err(error) => error,
        }
    }

    fn prepare(&self) -> Result<Vec<String>, String> {
        // SAFETY: umask cannot fail and touches no memory.
        unsafe { libc::umask(0o022) };
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let group = std::fs::read_to_string("/etc/group").unwrap_or_default();
        let user = resolve(&self.process, &passwd, &group)?;
        if let Some(socket) = self.terminal {
            open_terminal(socket, self.first).map_err(|error| format!("cannot open a terminal: {error}"))?;
        }
        own_stdio(user.uid);
        let cwd = if self.process.cwd.is_empty() { "/" } else { &self.process.cwd };
        if !Path::new(cwd).exists() {
            // As container engines do; a read-only root leaves the error to chdir.
            let _ = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(cwd);
        }
        let early = std::env::set_current_dir(cwd);
        reset_signals();
        for filter in &self.filters {
            install_filter(filter).map_err(|error| format!("cannot install the seccomp filter: {error}"))?;
        }
        become_user(&user, self.process.capabilities)
            .map_err(|error| format!("cannot set credentials: {error}"))?;
        if early.is_err() {
            std::env::set_current_dir(cwd)
                .map_err(|error| format!("chdir to cwd ({cwd:?}) set in config.json failed: {error}"))?;
        }
        if self.process.no_new_privileges {
            // SAFETY: prctl with integer arguments.
            check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
                .map_err(|error| format!("cannot set no_new_privs: {error}"))?;
        }
        let mut env = self.process.env.clone();
        if let Some(home) = user.home
            && !env.iter().any(|pair| pair.starts_with("HOME="))
        {
            env.push(format!("HOME={home}"));
        }
        Ok(env)
    }

    fn exec(&self, env: &[String]) -> String {
        let Some(program) = self.process.args.first() else { return "no command specified".to_owned() };
        let (args, env_c) = match (strings(&self.process.args), strings(env)) {
            (Ok(args), Ok(env)) => (args, env),
            (Err(error), _) | (_, Err(error)) => return error,
        };
        let (argv, envp) = (pointers(&args), pointers(&env_c));
        if program.contains('/') {
            let error = execve(program, &argv, &envp);
            return match error.kind() {
                io::ErrorKind::NotFound => {
                    format!("exec: {program:?}: stat {program}: no such file or directory")
                }
                _ => format!("exec: {program:?}: {}", describe(&error)),
            };
        }
        let path = env.iter().rev().find_map(|pair| pair.strip_prefix("PATH="));
        let mut denied = None;
        for dir in path.unwrap_or(DEFAULT_PATH).split(':') {
            let dir = if dir.is_empty() { "." } else { dir };
            let error = execve(&format!("{dir}/{program}"), &argv, &envp);
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                Some(libc::EACCES) => denied = Some(error),
                _ => return format!("exec: {program:?}: {}", describe(&error)),
            }
        }
        match denied {
            Some(error) => format!("exec: {program:?}: {}", describe(&error)),
            None => format!("exec: {program:?}: executable file not found in $PATH"),
        }
    }
}

/// `PATH` of a container whose image sets none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EACCES) => "permission denied".to_owned(),
        Some(libc::ENOEXEC) => "exec format error".to_owned(),
        _ => error.to_string(),
    }
}

fn strings(values: &[String]) -> Result<Vec<CString>, String> {
    values
        .iter()
        .map(|value| {
            CString::new(value.as_str()).map_err(|_| "arguments must not contain a zero byte".to_owned())
        })
        .collect()
}

fn pointers(values: &[CString]) -> Vec<*const c_char> {
    values.iter().map(|value| value.as_ptr()).chain([std::ptr::null()]).collect()
}

fn execve(path: &str, argv: &[*const c_char], envp: &[*const c_char]) -> io::Error {
    let Ok(path) = CString::new(path) else { return io::ErrorKind::InvalidInput.into() };
    // SAFETY: all three are valid, the arrays end with a null pointer, and their strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Finds the user as the pod or the image names it.
fn resolve(process: &Process, passwd: &str, group: &str) -> Result<User, String> {
    let (name, group_name) = match process.image_user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (process.image_user.as_str(), None),
    };
    let uid = match (process.uid, name) {
        (Some(uid), _) => uid,
        (None, "") => 0,
        (None, name) => match name.parse() {
            Ok(uid) => uid,
            Err(_) => entry(passwd, |fields| fields.first() == Some(&name))
                .and_then(|fields| fields.get(2)?.parse().ok())
                .ok_or_else(|| format!("unable to find user {name}: no matching entries in passwd file"))?,
        },
    };
    let account = entry(passwd, |fields| fields.get(2).and_then(|id| id.parse().ok()) == Some(uid));
    let gid = match (process.gid, process.uid, group_name) {
        (Some(gid), _, _) => gid,
        (None, None, Some(wanted)) if !wanted.is_empty() => match wanted.parse() {
            Ok(gid) => gid,
            Err(_) => entry(group, |fields| fields.first() == Some(&wanted))
                .and_then(|fields| fields.get(2)?.parse().ok())
                .ok_or_else(|| format!("unable to find group {wanted}: no matching entries in group file"))?,
        },
        _ => account.as_ref().and_then(|fields| fields.get(3)?.parse().ok()).unwrap_or(0),
    };
    let mut groups = vec![gid];
    groups.extend(&process.groups);
    if let Some(login) = account.as_ref().and_then(|fields| fields.first()) {
        for line in group.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            if let (Some(id), Some(members)) = (fields.get(2).and_then(|id| id.parse().ok()), fields.get(3))
                && members.split(',').any(|member| member == *login)
            {
                groups.push(id);
            }
        }
    }
    groups.sort_unstable();
    groups.dedup();
    let home = account.and_then(|fields| fields.get(5).map(|home| (*home).to_owned()));
    let home = home.filter(|home| !home.is_empty()).or_else(|| Some("/".to_owned()));
    Ok(User { uid, gid, groups, home })
}

fn entry<'a>(table: &'a str, wanted: impl Fn(&[&'a str]) -> bool) -> Option<Vec<&'a str>> {
    table.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| wanted(fields))
}

fn open_terminal(socket: RawFd, first: bool) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let master: OwnedFd = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC)
        .open("/dev/pts/ptmx")?
        .into();
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &unlock) })?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags and returns a new descriptor.
    let slave = check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    let slave = unsafe { OwnedFd::from_raw_fd(slave) };
    if first {
        // A console is a convenience: images without /dev/console still work.
        let _ = mount_console(&slave);
    }
    // SAFETY: the socket was opened by the shim and stays open until exec.
    sys::send_fds(unsafe { BorrowedFd::borrow_raw(socket) }, b"t", &[master.as_raw_fd()])?;
    // The first process leads a session already.
    let _ = nix::unistd::setsid();
    // SAFETY: ioctl and dup2 on descriptors that we own.
    unsafe {
        check(libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0))?;
        for fd in 0..3 {
            check(libc::dup2(slave.as_raw_fd(), fd))?;
        }
    }
    Ok(())
}

fn mount_console(slave: &OwnedFd) -> io::Result<()> {
    std::fs::OpenOptions::new().create(true).append(true).open("/dev/console")?;
    let source = format!("/proc/self/fd/{}", slave.as_raw_fd());
    nix::mount::mount(
        Some(source.as_str()),
        "/dev/console",
        None::<&str>,
        nix::mount::MsFlags::MS_BIND,
        None::<&str>,
    )?;
    Ok(())
}

/// Lets a program without root open `/dev/stdout` again.
fn own_stdio(uid: u32) {
    let null =
        std::fs::metadata("/dev/null").map(|meta| std::os::unix::fs::MetadataExt::rdev(&meta)).unwrap_or(0);
    for fd in 0..3 {
        // SAFETY: stat is plain old data, and fstat fills it.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: fstat and fchown on standard streams; failure is harmless.
        unsafe {
            if libc::fstat(fd, &mut stat) == 0 && stat.st_rdev != null && stat.st_uid != uid {
                let _ = libc::fchown(fd, uid, u32::MAX);
            }
        }
    }
}

fn reset_signals() {
    // SAFETY: signal dispositions and mask of a process that is about to exec.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut empty: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut empty);
        libc::sigprocmask(libc::SIG_SETMASK, &empty, std::ptr::null_mut());
    }
}

/// Installs a compiled filter. Needs CAP_SYS_ADMIN as long as `no_new_privs` is not set.
fn install_filter(bytes: &[u8]) -> io::Result<()> {
    let instructions: Vec<libc::sock_filter> = bytes
        .chunks_exact(8)
        .map(|chunk| libc::sock_filter {
            code: u16::from_le_bytes([chunk[0], chunk[1]]),
            jt: chunk[2],
            jf: chunk[3],
            k: u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]),
        })
        .collect();
    let program = libc::sock_fprog {
        len: u16::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: instructions.as_ptr().cast_mut(),
    };
    // SAFETY: the program points to `len` instructions which the kernel copies.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &program) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAP_VERSION_3: u32 = 0x2008_0522;

fn become_user(user: &User, wanted: u64) -> io::Result<()> {
    let mut header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: header and two data blocks as version 3 of the interface wants them.
    unsafe {
        if libc::syscall(libc::SYS_capget, &mut header, data.as_mut_ptr()) < 0 {
            return Err(io::Error::last_os_error());
        }
        // Ends at the first capability that the kernel does not know.
        for cap in 0..64u64 {
            match libc::prctl(libc::PR_CAPBSET_READ, cap, 0, 0, 0) {
                1 if wanted & (1 << cap) == 0 => {
                    check(libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0))?;
                }
                n if n < 0 => break,
                _ => {}
            }
        }
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        check(libc::setgroups(user.groups.len(), user.groups.as_ptr()))?;
        check(libc::setresgid(user.gid, user.gid, user.gid))?;
        check(libc::setresuid(user.uid, user.uid, user.uid))?;
    }
    let permitted = u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32;
    let kept = if user.uid == 0 { permitted & wanted } else { 0 };
    for (index, block) in data.iter_mut().enumerate() {
        let half = (kept >> (32 * index)) as u32;
        *block = CapData { effective: half, permitted: half, inheritable: 0 };
    }
    // SAFETY: as for capget.
    if unsafe { libc::syscall(libc::SYS_capset, &mut header, data.as_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:web:/srv:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:102:\nlogs:x:104:web,other\n";

    fn check(process: Process, uid: u32, gid: u32, groups: &[u32], home: &str) {
        let user = resolve(&process, PASSWD, GROUP).unwrap();
        let expected = User { uid, gid, groups: groups.to_vec(), home: Some(home.to_owned()) };
        assert_eq!(user, expected);
    }

    fn image(user: &str) -> Process {
        Process { image_user: user.to_owned(), ..Process::default() }
    }

    #[test]
    fn users_are_found_inside() {
        check(image(""), 0, 0, &[0], "/root");
        check(image("web"), 101, 102, &[102, 104], "/srv");
        check(image("web:logs"), 101, 104, &[104], "/srv");
        check(image("101"), 101, 102, &[102, 104], "/srv");
        check(image("7:8"), 7, 8, &[8], "/");
        check(Process { uid: Some(101), ..image("nobody:nogroup") }, 101, 102, &[102, 104], "/srv");
        check(Process { uid: Some(5), gid: Some(6), groups: vec![9, 6], ..image("") }, 5, 6, &[6, 9], "/");
    }

    #[test]
    fn unknown_names_are_refused() {
        assert!(resolve(&image("ghost"), PASSWD, GROUP).unwrap_err().contains("ghost"));
        assert!(resolve(&image("web:ghosts"), PASSWD, GROUP).unwrap_err().contains("ghosts"));
    }
}
