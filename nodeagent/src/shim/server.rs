//! The shim's loop: one container, its streams, and the agent's connections.

mod requests;
mod streams;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::log::{Log, Stream};
use super::protocol::{self, Kind, Parsed};
use super::start::Streams;
use super::sys;
use super::task::{self, Exited, Task};

/// A client that reads this much slower than the container writes is disconnected.
const MAX_ATTACH_BACKLOG: usize = 1 << 20;
/// Output of an exec is read only while less than this waits for the client.
const EXEC_BACKLOG: usize = 256 * 1024;
/// Input is taken only while less than this waits for the process.
const STDIN_BACKLOG: usize = 64 * 1024;
/// How long output may still come after a process has ended, from those that it left behind.
const DRAIN: Duration = Duration::from_secs(1);
/// A shim that nobody starts goes away.
const UNSTARTED: Duration = Duration::from_secs(60);

/// Serves the container of this directory until it has ended and everybody knows.
pub fn run(dir: &Path, listener: UnixListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let signals = block_child_signals()?;
    let _ = nix::unistd::setsid();
    // SAFETY: prctl with integer arguments.
    sys::check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })?;
    let text = std::fs::read(dir.join(task::TASK_FILE))?;
    let task: Task = serde_json::from_slice(&text).map_err(io::Error::other)?;
    drop(text);
    let mut server = Server {
        dir: dir.to_owned(),
        log: Log::open(task.log_path.clone())?,
        task,
        listener,
        signals,
        processes: Vec::new(),
        clients: Vec::new(),
        next: 0,
        born: Instant::now(),
        exit: None,
        published: None,
    };
    server.serve()
}

fn block_child_signals() -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: signal set calls on a local set; signalfd returns a new descriptor.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        sys::check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()))?;
        let fd = sys::check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Its request has not come yet.
    Request,
    /// It waits for the container's end.
    Wait,
    /// It is connected to the first process.
    Attached,
    /// It is connected to the process of that number.
    Exec(u32),
    /// It is closed as soon as everything is written.
    Done,
}

struct Client {
    fd: OwnedFd,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    role: Role,
    kill_on_close: bool,
}

struct Process {
    number: u32,
    pid: i32,
    streams: Streams,
    terminal: bool,
    pending: Vec<u8>,
    close_stdin: bool,
    status: Option<i32>,
    drain_until: Option<Instant>,
}

struct Server {
    dir: PathBuf,
    task: Task,
    log: Log,
    listener: UnixListener,
    signals: OwnedFd,
    /// The first process has number 0.
    processes: Vec<Process>,
    clients: Vec<Client>,
    next: u32,
    born: Instant,
    exit: Option<i32>,
    published: Option<Instant>,
}

#[derive(Clone, Copy)]
enum Token {
    Listener,
    Signals,
    Client(usize),
    Output(u32, Stream),
    Input(u32),
}

// === impl Server ===

impl Server {
    fn serve(&mut self) -> io::Result<()> {
        let mut buffer = vec![0u8; 16 * 1024];
        loop {
            let (mut fds, tokens) = self.interests();
            // SAFETY: a valid array of that length.
            let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, self.timeout()) };
            if ready < 0 && io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
                return Err(io::Error::last_os_error());
            }
            for (fd, token) in fds.iter().zip(&tokens) {
                if fd.revents == 0 {
                    continue;
                }
                match *token {
                    Token::Listener => self.accept(),
                    Token::Signals => {
                        let _ = sys::read_some(&self.signals, &mut buffer);
                        self.reap();
                    }
                    Token::Client(index) => self.client(index, fd.revents, &mut buffer),
                    Token::Output(number, stream) => self.output(number, stream, &mut buffer),
                    Token::Input(number) => self.input(number),
                }
            }
            self.settle();
            self.clients.retain(|client| !(client.role == Role::Done && client.outbox.is_empty()));
            if self.finished() {
                return Ok(());
            }
        }
    }

    fn interests(&self) -> (Vec<libc::pollfd>, Vec<Token>) {
        let (mut fds, mut tokens) = (Vec::new(), Vec::new());
        let mut add = |fd: i32, events: i16, token: Token| {
            fds.push(libc::pollfd { fd, events, revents: 0 });
            tokens.push(token);
        };
        add(self.listener.as_raw_fd(), libc::POLLIN, Token::Listener);
        add(self.signals.as_raw_fd(), libc::POLLIN, Token::Signals);
        for (index, client) in self.clients.iter().enumerate() {
            let mut events = 0;
            if !client.outbox.is_empty() {
                events |= libc::POLLOUT;
            }
            if client.role != Role::Done && self.has_room(client.role) {
                events |= libc::POLLIN;
            }
            add(client.fd.as_raw_fd(), events, Token::Client(index));
        }
        for process in &self.processes {
            if self.may_read(process.number) {
                if let Some(fd) = &process.streams.stdout {
                    add(fd.as_raw_fd(), libc::POLLIN, Token::Output(process.number, Stream::Stdout));
                }
                if let Some(fd) = &process.streams.stderr {
                    add(fd.as_raw_fd(), libc::POLLIN, Token::Output(process.number, Stream::Stderr));
                }
            }
            if let (Some(fd), false) = (&process.streams.stdin, process.pending.is_empty()) {
                add(fd.as_raw_fd(), libc::POLLOUT, Token::Input(process.number));
            }
        }
        (fds, tokens)
    }

    fn timeout(&self) -> i32 {
        let now = Instant::now();
        let drains = self.processes.iter().filter_map(|process| process.drain_until);
        let unstarted = (self.next == 0).then(|| self.born + UNSTARTED);
        let leave = self.published.map(|at| at + DRAIN);
        let next = drains.chain(unstarted).chain(leave).min();
        next.map_or(-1, |at| at.saturating_duration_since(now).as_millis() as i32 + 1)
    }

    fn target(&self, role: Role) -> Option<u32> {
        match role {
            Role::Attached => Some(0),
            Role::Exec(number) => Some(number),
            _ => None,
        }
    }

    fn has_room(&self, role: Role) -> bool {
        let Some(number) = self.target(role) else { return true };
        let process = self.processes.iter().find(|process| process.number == number);
        process.is_none_or(|process| process.pending.len() < STDIN_BACKLOG)
    }

    fn may_read(&self, number: u32) -> bool {
        number == 0
            || self
                .clients
                .iter()
                .find(|client| client.role == Role::Exec(number))
                .is_none_or(|client| client.outbox.len() < EXEC_BACKLOG)
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client {
                    fd: stream.into(),
                    inbox: Vec::new(),
                    outbox: Vec::new(),
                    role: Role::Request,
                    kill_on_close: false,
                });
            }
        }
    }

    fn client(&mut self, index: usize, events: i16, buffer: &mut [u8]) {
        let Some(client) = self.clients.get_mut(index) else { return };
        if events & libc::POLLOUT != 0 && flush(client).is_err() {
            return self.gone(index);
        }
        if events & (libc::POLLIN | libc::POLLHUP | libc::POLLERR) == 0 {
            return;
        }
        let Some(client) = self.clients.get_mut(index) else { return };
        if client.role == Role::Done {
            client.outbox.clear();
            return;
        }
        match sys::read_some(&client.fd, buffer) {
            Ok(None) => {}
            Ok(Some(0)) | Err(_) => self.gone(index),
            Ok(Some(n)) => {
                client.inbox.extend_from_slice(&buffer[..n]);
                self.frames(index);
            }
        }
    }

    fn frames(&mut self, index: usize) {
        loop {
            let Some(client) = self.clients.get_mut(index) else { return };
            if client.role == Role::Done {
                return;
            }
            let (kind, payload, used) = match protocol::parse(&client.inbox) {
                Parsed::Incomplete => return,
                Parsed::Malformed => return self.gone(index),
                Parsed::Frame(kind, payload, used) => (kind, payload.to_vec(), used),
            };
            client.inbox.drain(..used);
            match client.role {
                Role::Request => self.request(index, kind, &payload),
                role => self.stream_frame(role, kind, &payload),
            }
        }
    }

    fn reap(&mut self) {
        loop {
            let mut status = 0;
            // SAFETY: waitpid with a valid status pointer.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG | libc::__WALL) };
            if pid <= 0 {
                return;
            }
            let code = if libc::WIFSIGNALED(status) {
                128 + libc::WTERMSIG(status)
            } else {
                libc::WEXITSTATUS(status)
            };
            let Some(process) = self.processes.iter_mut().find(|process| process.pid == pid) else {
                continue;
            };
            process.status = Some(code);
            process.drain_until = Some(Instant::now() + DRAIN);
            if process.number == 0 {
                self.exit = Some(code);
                if !self.task.own_pid_namespace {
                    self.kill_cgroup();
                }
            }
        }
    }

    /// Ends processes whose status is known and whose output has come.
    fn settle(&mut self) {
        let now = Instant::now();
        let mut index = 0;
        while let Some(process) = self.processes.get(index) {
            let drained = process.streams.stdout.is_none() && process.streams.stderr.is_none();
            let ended = process.status.filter(|_| drained || process.drain_until.is_some_and(|at| at <= now));
            let Some(code) = ended else {
                index += 1;
                continue;
            };
            let number = process.number;
            self.processes.remove(index);
            if number == 0 {
                self.log.end(Stream::Stdout, sys::now_ns());
                self.log.end(Stream::Stderr, sys::now_ns());
                let exited = Exited {
                    code,
                    at: sys::now_ns(),
                    oom_killed: oom_killed(&self.task),
                    start_error: None,
                    lost: false,
                };
                self.publish(&exited);
            } else {
                self.tell(Role::Exec(number), code);
            }
        }
    }

    fn publish(&mut self, exited: &Exited) {
        if let Ok(bytes) = serde_json::to_vec(exited) {
            // Without the file the agent takes the container for lost.
            let _ = sys::write_atomically(&self.dir.join(task::EXITED_FILE), &bytes);
        }
        self.exit = Some(exited.code);
        self.published = Some(Instant::now());
        self.tell(Role::Wait, exited.code);
        self.tell(Role::Attached, exited.code);
    }

    fn tell(&mut self, role: Role, code: i32) {
        for client in self.clients.iter_mut().filter(|client| client.role == role) {
            protocol::put(&mut client.outbox, Kind::Exit, &code.to_le_bytes());
            client.role = Role::Done;
            if flush(client).is_err() {
                client.outbox = Vec::new();
            }
        }
    }

    /// Late waiters are told too; then nothing is left to do.
    fn finished(&mut self) -> bool {
        if let (Some(code), Some(at)) = (self.exit, self.published) {
            self.tell(Role::Wait, code);
            return (self.processes.is_empty() && self.clients.is_empty()) || at.elapsed() >= DRAIN;
        }
        self.next == 0 && self.clients.is_empty() && self.born.elapsed() >= UNSTARTED
    }
}

fn flush(client: &mut Client) -> io::Result<()> {
    while !client.outbox.is_empty() {
        match sys::write_some(&client.fd, &client.outbox)? {
            Some(n) => drop(client.outbox.drain(..n)),
            None => break,
        }
    }
    if client.outbox.is_empty() && client.outbox.capacity() > EXEC_BACKLOG {
        client.outbox = Vec::new();
    }
    Ok(())
}

fn oom_killed(task: &Task) -> bool {
    let counted = |text: &str| {
        text.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
    };
    task.cgroups.iter().any(|dir| {
        ["memory.events", "memory.oom_control"]
            .iter()
            .filter_map(|file| std::fs::read_to_string(dir.join(file)).ok())
            .any(|text| counted(&text))
    })
}
