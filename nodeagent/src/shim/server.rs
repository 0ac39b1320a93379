//! The shim's loop: one container, its streams, and the agent's connections.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::log::{Log, Stream};
use super::protocol::{self, Kind, Parsed};
use super::start::Streams;
use super::task::{self, Exec, Exited, Started, Task};
use super::{exec, start, sys};

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

    fn request(&mut self, index: usize, kind: Kind, payload: &[u8]) {
        let Some((&protocol::VERSION, body)) = payload.split_first() else {
            return self.answer(index, Kind::Error, b"unknown protocol version", Role::Done);
        };
        match kind {
            Kind::Start => match self.start() {
                Ok(pid) => self.answer(index, Kind::Ok, pid.to_string().as_bytes(), Role::Done),
                Err(error) => self.answer(index, Kind::Error, error.as_bytes(), Role::Done),
            },
            Kind::Signal => {
                let signal = body.first().copied().unwrap_or(libc::SIGKILL as u8);
                self.signal(i32::from(signal));
                self.answer(index, Kind::Ok, b"", Role::Done);
            }
            Kind::ReopenLog => match self.log.reopen() {
                Ok(()) => self.answer(index, Kind::Ok, b"", Role::Done),
                Err(error) => self.answer(index, Kind::Error, error.to_string().as_bytes(), Role::Done),
            },
            Kind::Wait => self.answer(index, Kind::Ok, b"", Role::Wait),
            Kind::Attach if self.init().is_some() => self.answer(index, Kind::Ok, b"", Role::Attached),
            Kind::Attach => self.answer(index, Kind::Error, b"container is not running", Role::Done),
            Kind::Exec => self.exec(index, body),
            Kind::Quit => {
                self.born = Instant::now().checked_sub(UNSTARTED).unwrap_or(self.born);
                self.answer(index, Kind::Ok, b"", Role::Done);
            }
            _ => self.answer(index, Kind::Error, b"not a request", Role::Done),
        }
    }

    fn answer(&mut self, index: usize, kind: Kind, payload: &[u8], role: Role) {
        let Some(client) = self.clients.get_mut(index) else { return };
        protocol::put(&mut client.outbox, kind, payload);
        client.role = role;
        if flush(client).is_err() {
            self.gone(index);
        }
    }

    fn init(&self) -> Option<&Process> {
        self.processes.iter().find(|process| process.number == 0 && process.status.is_none())
    }

    fn signal(&self, signal: i32) {
        if let Some(init) = self.init() {
            // SAFETY: the process is our child and has not been reaped: the pid is its own.
            unsafe { libc::kill(init.pid, signal) };
        }
        if signal == libc::SIGKILL && !self.task.own_pid_namespace {
            self.kill_cgroup();
        }
    }

    /// Kills what the container has left in a PID namespace that it shares with others.
    fn kill_cgroup(&self) {
        for dir in &self.task.cgroups {
            for pid in std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
                if let Ok(pid) = pid.parse::<i32>() {
                    // SAFETY: kill takes integers.
                    unsafe { libc::kill(pid, libc::SIGKILL) };
                }
            }
        }
    }

    fn start(&mut self) -> Result<i32, String> {
        if self.next != 0 {
            return self.init().map(|init| init.pid).ok_or_else(|| "container has ended".to_owned());
        }
        self.next = 1;
        let (pid, streams) = match start::start(&self.dir, &self.task) {
            Ok(started) => started,
            Err(error) => {
                let exited = Exited {
                    code: 128,
                    at: sys::now_ns(),
                    oom_killed: false,
                    start_error: Some(error.clone()),
                    lost: false,
                };
                self.publish(&exited);
                return Err(error);
            }
        };
        let shim = std::process::id() as i32;
        let started = Started {
            pid,
            pid_start: sys::start_time(pid).unwrap_or(0),
            shim,
            shim_start: sys::start_time(shim).unwrap_or(0),
            at: sys::now_ns(),
            boot_id: self.task.boot_id.clone(),
        };
        if let Ok(bytes) = serde_json::to_vec(&started) {
            // Without the file a later agent takes the container for lost and replaces it.
            let _ = sys::write_atomically(&self.dir.join(task::STARTED_FILE), &bytes);
        }
        self.add_process(0, pid, streams, self.task.process.tty);
        // SAFETY: gives unused heap pages back; has no other effect.
        unsafe { libc::malloc_trim(0) };
        Ok(pid)
    }

    fn add_process(&mut self, number: u32, pid: i32, streams: Streams, terminal: bool) {
        self.processes.push(Process {
            number,
            pid,
            streams,
            terminal,
            pending: Vec::new(),
            close_stdin: false,
            status: None,
            drain_until: None,
        });
    }

    fn exec(&mut self, index: usize, body: &[u8]) {
        let request: Exec = match serde_json::from_slice(body) {
            Ok(request) => request,
            Err(error) => return self.answer(index, Kind::Error, error.to_string().as_bytes(), Role::Done),
        };
        let Some(init) = self.init().map(|init| init.pid) else {
            return self.answer(index, Kind::Error, b"container is not running", Role::Done);
        };
        let (tty, kill_on_close) = (request.tty, request.kill_on_close);
        match exec::exec(&self.task, init, request) {
            Ok((pid, streams)) => {
                let number = self.next;
                self.next += 1;
                self.add_process(number, pid, streams, tty);
                if let Some(client) = self.clients.get_mut(index) {
                    client.kill_on_close = kill_on_close;
                }
                self.answer(index, Kind::Ok, b"", Role::Exec(number));
                // It may have ended before it was in the list.
                self.reap();
            }
            Err(error) => self.answer(index, Kind::Error, error.as_bytes(), Role::Done),
        }
    }

    fn stream_frame(&mut self, role: Role, kind: Kind, payload: &[u8]) {
        let Some(number) = self.target(role) else { return };
        let Some(process) = self.processes.iter_mut().find(|process| process.number == number) else {
            return;
        };
        match kind {
            Kind::Stdin if process.streams.stdin.is_some() => {
                process.pending.extend_from_slice(payload);
                self.input(number);
            }
            Kind::CloseStdin if !process.terminal => {
                process.close_stdin = true;
                self.input(number);
            }
            Kind::Resize if process.terminal => {
                if let ([w0, w1, h0, h1], Some(master)) = (payload, &process.streams.stdout) {
                    let size = libc::winsize {
                        ws_col: u16::from_le_bytes([*w0, *w1]),
                        ws_row: u16::from_le_bytes([*h0, *h1]),
                        ws_xpixel: 0,
                        ws_ypixel: 0,
                    };
                    // SAFETY: TIOCSWINSZ reads one winsize.
                    unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size) };
                }
            }
            _ => {}
        }
    }

    fn input(&mut self, number: u32) {
        let Some(process) = self.processes.iter_mut().find(|process| process.number == number) else {
            return;
        };
        if let Some(stdin) = &process.streams.stdin {
            while !process.pending.is_empty() {
                match sys::write_some(stdin, &process.pending) {
                    Ok(Some(n)) => drop(process.pending.drain(..n)),
                    Ok(None) => return,
                    Err(_) => {
                        process.close_stdin = true;
                        process.pending = Vec::new();
                    }
                }
            }
        }
        if process.close_stdin {
            process.streams.stdin = None;
            process.pending = Vec::new();
        }
    }

    fn output(&mut self, number: u32, stream: Stream, buffer: &mut [u8]) {
        let Some(process) = self.processes.iter_mut().find(|process| process.number == number) else {
            return;
        };
        let slot = match stream {
            Stream::Stdout => &mut process.streams.stdout,
            Stream::Stderr => &mut process.streams.stderr,
        };
        let Some(fd) = slot else { return };
        let n = match sys::read_some(fd, buffer) {
            Ok(None) => return,
            Ok(Some(n)) => n,
            Err(_) => 0,
        };
        if n == 0 {
            *slot = None;
            if number == 0 {
                self.log.end(stream, sys::now_ns());
            }
            return;
        }
        if number == 0 {
            self.log.write(stream, &buffer[..n], sys::now_ns());
        }
        let kind = if stream == Stream::Stdout { Kind::Stdout } else { Kind::Stderr };
        let role = if number == 0 { Role::Attached } else { Role::Exec(number) };
        for client in self.clients.iter_mut().filter(|client| client.role == role) {
            protocol::put(&mut client.outbox, kind, &buffer[..n]);
            if flush(client).is_err() || client.outbox.len() > MAX_ATTACH_BACKLOG {
                client.outbox = Vec::new();
                client.role = Role::Done;
            }
        }
    }

    /// The peer has closed the connection.
    fn gone(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else { return };
        let role = std::mem::replace(&mut client.role, Role::Done);
        let kill = client.kill_on_close;
        client.outbox = Vec::new();
        match role {
            Role::Exec(number) => {
                let found = self.processes.iter_mut().find(|process| process.number == number);
                let Some(process) = found else { return };
                process.close_stdin = true;
                if kill && process.status.is_none() {
                    // SAFETY: the process is our child and has not been reaped.
                    unsafe { libc::kill(process.pid, libc::SIGKILL) };
                }
                if process.terminal {
                    process.streams = Streams::default();
                }
                self.input(number);
            }
            Role::Attached if self.task.stdin_once => {
                if let Some(process) = self.processes.iter_mut().find(|process| process.number == 0) {
                    process.close_stdin = true;
                }
                self.input(0);
            }
            _ => {}
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
