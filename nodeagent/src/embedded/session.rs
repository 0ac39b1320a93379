//! Interactive sessions: a shim's frames as sink and stream.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use nodeagent_core::runtime::{ExecConfig, ExecOutput, RuntimeError, Session, SessionInput, SessionOutput};
use tokio::io::AsyncWriteExt;

use super::shims::{Connection, ShimError, next_frame, request};
use crate::shim::protocol::{self, Kind};
use crate::shim::task::Exec;

/// Most that [`exec_sync`] keeps of each stream.
const MAX_OUTPUT: usize = 16 * 1024;

/// Most input in one frame.
const CHUNK: usize = 64 * 1024;

/// Runs a command with its streams connected.
pub async fn exec(dir: &Path, config: ExecConfig) -> Result<Session, RuntimeError> {
    let exec = Exec { args: config.command, stdin: config.stdin, tty: config.tty, kill_on_close: false };
    Ok(session(start(dir, &exec).await?))
}

/// Connects to the first process.
pub async fn attach(dir: &Path) -> Result<Session, RuntimeError> {
    Ok(session(request(dir, Kind::Attach, b"").await?))
}

/// Runs a command to its end; it is killed when that takes too long.
pub async fn exec_sync(
    dir: &Path,
    command: Vec<String>,
    timeout: Duration,
) -> Result<ExecOutput, RuntimeError> {
    let exec = Exec { args: command, stdin: false, tty: false, kill_on_close: true };
    let run = async {
        let mut connection = start(dir, &exec).await?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let keep = |all: &mut Vec<u8>, more: &[u8]| {
            all.extend_from_slice(&more[..more.len().min(MAX_OUTPUT - all.len())]);
        };
        loop {
            match next_frame(&mut connection.stream, &mut connection.rest).await.map_err(ShimError::from)? {
                Some((Kind::Stdout, bytes)) => keep(&mut stdout, &bytes),
                Some((Kind::Stderr, bytes)) => keep(&mut stderr, &bytes),
                Some((Kind::Exit, code)) => {
                    let exit_code = exit_code(&code);
                    return Ok(ExecOutput { exit_code, stdout: stdout.into(), stderr: stderr.into() });
                }
                Some(_) => {}
                None => return Err(ended()),
            }
        }
    };
    if timeout.is_zero() {
        return run.await;
    }
    tokio::time::timeout(timeout, run).await.unwrap_or(Err(RuntimeError::Timeout(timeout)))
}

async fn start(dir: &Path, exec: &Exec) -> Result<Connection, RuntimeError> {
    let body = serde_json::to_vec(exec).map_err(|error| RuntimeError::Internal(error.to_string()))?;
    match request(dir, Kind::Exec, &body).await {
        Ok(connection) => Ok(connection),
        Err(ShimError::Refused(text)) => Err(RuntimeError::Start(text)),
        Err(ShimError::Gone(_)) => Err(ended()),
    }
}

pub(super) fn ended() -> RuntimeError {
    RuntimeError::Start("container is not running".to_owned())
}

fn exit_code(payload: &[u8]) -> i32 {
    payload.try_into().map_or(255, i32::from_le_bytes)
}

fn session(connection: Connection) -> Session {
    let Connection { stream, rest, .. } = connection;
    let (reader, writer) = stream.into_split();
    let input = futures::sink::unfold(writer, |mut writer, item: SessionInput| async move {
        let mut frames = Vec::new();
        match item {
            SessionInput::Stdin(bytes) => {
                bytes.chunks(CHUNK).for_each(|chunk| protocol::put(&mut frames, Kind::Stdin, chunk));
            }
            SessionInput::CloseStdin => protocol::put(&mut frames, Kind::CloseStdin, b""),
            SessionInput::Resize { width, height } => {
                let ([w0, w1], [h0, h1]) = (width.to_le_bytes(), height.to_le_bytes());
                protocol::put(&mut frames, Kind::Resize, &[w0, w1, h0, h1]);
            }
        }
        writer.write_all(&frames).await.map_err(|error| RuntimeError::Internal(error.to_string()))?;
        Ok::<_, RuntimeError>(writer)
    });
    let output = futures::stream::unfold((reader, rest, false), |(mut reader, mut rest, ended)| async move {
        if ended {
            return None;
        }
        loop {
            let item = match next_frame(&mut reader, &mut rest).await {
                Ok(Some((Kind::Stdout, bytes))) => Ok(SessionOutput::Stdout(Bytes::from(bytes))),
                Ok(Some((Kind::Stderr, bytes))) => Ok(SessionOutput::Stderr(Bytes::from(bytes))),
                Ok(Some((Kind::Exit, code))) => {
                    return Some((Ok(SessionOutput::Exit(exit_code(&code))), (reader, rest, true)));
                }
                Ok(Some(_)) => continue,
                Ok(None) => {
                    let error =
                        RuntimeError::Internal("the container's shim has closed the session".to_owned());
                    return Some((Err(error), (reader, rest, true)));
                }
                Err(error) => {
                    return Some((Err(RuntimeError::Internal(error.to_string())), (reader, rest, true)));
                }
            };
            return Some((item, (reader, rest, false)));
        }
    });
    Session { input: Box::pin(input), output: output.boxed() }
}
