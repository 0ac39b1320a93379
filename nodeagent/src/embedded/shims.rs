//! The agent's side of zygote and shims.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};
use nodeagent_core::runtime::RuntimeError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::SMALL_HEAP;
use crate::shim::protocol::{self, Kind, Parsed};
use crate::shim::{ARGV, send_fds, task, zygote};

/// Starts shims; keeps one zygote for that, and starts another when it has gone.
pub struct Zygote {
    cgroups: Vec<PathBuf>,
    running: Mutex<Option<Running>>,
}

struct Running {
    socket: OwnedFd,
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It ends when the socket closes or when it was idle; either way it must be reaped.
        let _ = nix::sys::socket::shutdown(self.socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        let _ = self.child.wait();
    }
}

// === impl Zygote ===

impl Zygote {
    /// Shims will live in these cgroup directories.
    pub fn new(cgroups: Vec<PathBuf>) -> Zygote {
        Zygote { cgroups, running: Mutex::new(None) }
    }

    /// Starts the shim of a container. Blocks for about a millisecond.
    pub fn start_shim(&self, dir: &Path) -> io::Result<()> {
        let socket = dir.join(task::SOCKET_FILE);
        let _ = std::fs::remove_file(&socket);
        let listener = within(dir, |short| UnixListener::bind(short.join(task::SOCKET_FILE)))?;
        self.request(zygote::SHIM, dir, Some(&listener)).map(|_| ())
    }

    /// Makes a PID namespace pinned at `pin`; returns the pid of its first process.
    pub fn start_pause(&self, pin: &Path) -> io::Result<i32> {
        self.request(zygote::PAUSE, pin, None)
    }

    /// Ends the zygote.
    pub fn stop(&self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn request(&self, kind: u8, path: &Path, listener: Option<&UnixListener>) -> io::Result<i32> {
        let mut message = vec![kind];
        message.extend_from_slice(path.as_os_str().as_bytes());
        let fds: Vec<_> = listener.iter().map(|listener| listener.as_raw_fd()).collect();
        let mut slot = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = [0u8; 256];
        for fresh in [false, true] {
            let mut running = match slot.take() {
                Some(running) => running,
                None => self.spawn()?,
            };
            let sent = send_fds(running.socket.as_fd(), &message, &fds);
            let answer = sent.and_then(|()| {
                recv(running.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).map_err(io::Error::from)
            });
            match answer {
                Ok(length) if length > 0 => {
                    *slot = Some(running);
                    let text = String::from_utf8_lossy(&buffer[..length]);
                    return text
                        .parse()
                        .map_err(|_| io::Error::other(text.trim_start_matches('!').to_owned()));
                }
                // It went idle between two requests: once more with a new one.
                _ if !fresh => {
                    let _ = running.child.try_wait();
                }
                Ok(_) => return Err(io::Error::other("the process that starts containers has ended")),
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("the process that starts containers has ended"))
    }

    fn spawn(&self) -> io::Result<Running> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let child = Command::new("/proc/self/exe")
            .args(ARGV)
            .arg("zygote")
            .args(&self.cgroups)
            .env_clear()
            .env(SMALL_HEAP.0, SMALL_HEAP.1)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Running { socket: ours, child })
    }
}

/// Gives `work` a short path of a directory: socket paths have at most 107 bytes.
fn within<T>(dir: &Path, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let dir = File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(dir)?;
    work(Path::new(&format!("/proc/self/fd/{}", dir.as_raw_fd())))
}

/// A connection to a shim after its request was accepted.
pub struct Connection {
    /// The socket.
    pub stream: UnixStream,
    /// Bytes that came after the answer.
    pub rest: Vec<u8>,
}

/// Why a shim did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// The shim is not there.
    #[error("cannot reach the container's shim: {0}")]
    Gone(#[from] io::Error),
    /// The shim says no.
    #[error("{0}")]
    Refused(String),
}

impl From<ShimError> for RuntimeError {
    fn from(error: ShimError) -> RuntimeError {
        RuntimeError::Internal(error.to_string())
    }
}

/// Sends a request to a container's shim and waits for the answer.
pub async fn request(dir: &Path, kind: Kind, body: &[u8]) -> Result<Connection, ShimError> {
    let stream = within(dir, |short| StdUnixStream::connect(short.join(task::SOCKET_FILE)))?;
    stream.set_nonblocking(true)?;
    let mut stream = UnixStream::from_std(stream)?;
    stream.write_all(&protocol::request(kind, body)).await?;
    let mut rest = Vec::new();
    match next_frame(&mut stream, &mut rest).await? {
        Some((Kind::Ok, _)) => Ok(Connection { stream, rest }),
        Some((Kind::Error, text)) => Err(ShimError::Refused(String::from_utf8_lossy(&text).into_owned())),
        Some(_) => Err(ShimError::Refused("unexpected answer".to_owned())),
        None => Err(ShimError::Gone(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Waits for the next frame; `None` when the shim has closed the connection.
pub async fn next_frame(
    stream: &mut (impl AsyncReadExt + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<Option<(Kind, Vec<u8>)>> {
    loop {
        match protocol::parse(buffer) {
            Parsed::Frame(kind, payload, used) => {
                let payload = payload.to_vec();
                buffer.drain(..used);
                return Ok(Some((kind, payload)));
            }
            Parsed::Malformed => return Err(io::ErrorKind::InvalidData.into()),
            Parsed::Incomplete => {}
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}
