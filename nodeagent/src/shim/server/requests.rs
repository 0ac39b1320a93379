//! What the agent asks of a shim.

use std::time::Instant;

use super::super::protocol::{self, Kind};
use super::super::start::Streams;
use super::super::task::{self, Exec, Exited, Started};
use super::super::{exec, start, sys};
use super::{Process, Role, Server, UNSTARTED, flush};

impl Server {
    pub(super) fn request(&mut self, index: usize, kind: Kind, payload: &[u8]) {
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

    pub(super) fn answer(&mut self, index: usize, kind: Kind, payload: &[u8], role: Role) {
        let Some(client) = self.clients.get_mut(index) else { return };
        protocol::put(&mut client.outbox, kind, payload);
        client.role = role;
        if flush(client).is_err() {
            self.gone(index);
        }
    }

    pub(super) fn init(&self) -> Option<&Process> {
        self.processes.iter().find(|process| process.number == 0 && process.status.is_none())
    }

    pub(super) fn signal(&self, signal: i32) {
        if let Some(init) = self.init() {
            // SAFETY: the process is our child and has not been reaped: the pid is its own.
            unsafe { libc::kill(init.pid, signal) };
        }
        if signal == libc::SIGKILL && !self.task.own_pid_namespace {
            self.kill_cgroup();
        }
    }

    /// Kills what the container has left in a PID namespace that it shares with others.
    pub(super) fn kill_cgroup(&self) {
        for dir in &self.task.cgroups {
            for pid in std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
                if let Ok(pid) = pid.parse::<i32>() {
                    // SAFETY: kill takes integers.
                    unsafe { libc::kill(pid, libc::SIGKILL) };
                }
            }
        }
    }

    pub(super) fn start(&mut self) -> Result<i32, String> {
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
        Ok(pid)
    }

    pub(super) fn add_process(&mut self, number: u32, pid: i32, streams: Streams, terminal: bool) {
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

    pub(super) fn exec(&mut self, index: usize, body: &[u8]) {
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
}
