//! Bytes between a process's streams, the log, and the connections.

use std::os::fd::AsRawFd;

use super::super::log::Stream;
use super::super::protocol::{self, Kind};
use super::super::start::Streams;
use super::super::sys;
use super::{MAX_ATTACH_BACKLOG, Role, Server, flush};

impl Server {
    pub(super) fn stream_frame(&mut self, role: Role, kind: Kind, payload: &[u8]) {
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

    pub(super) fn input(&mut self, number: u32) {
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

    pub(super) fn output(&mut self, number: u32, stream: Stream, buffer: &mut [u8]) {
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
    pub(super) fn gone(&mut self, index: usize) {
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
}
