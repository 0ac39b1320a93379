//! Frames between agent and shim on a unix stream socket: `u32` little-endian length, one byte of kind, payload.
//!
//! The first frame of a connection is a request: its payload starts with the protocol version. `Exec` and `Attach` turn
//! the connection into a stream of input and output frames that ends with `Exit`.

/// Raised when an older peer would misunderstand a frame. Old shims outlive an upgrade of the agent.
pub const VERSION: u8 = 1;

/// Longest payload that either side accepts.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// Bytes before the payload.
pub const HEADER: usize = 5;

/// What a frame means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Request: start the container. Answered by `Ok` (payload: pid as decimal text) or `Error`.
    Start = 1,
    /// Request: send the signal in the payload (one byte) to the first process.
    Signal = 2,
    /// Request: run the JSON [`super::task::Exec`] in the payload.
    Exec = 3,
    /// Request: connect to the first process.
    Attach = 4,
    /// Request: open the log file anew.
    ReopenLog = 5,
    /// Request: be told when the first process has ended.
    Wait = 6,
    /// Request: leave without having started anything.
    Quit = 7,
    /// Answer: done.
    Ok = 32,
    /// Answer: not done; the payload says why.
    Error = 33,
    /// Answer: the process ended with the status in the payload (`i32` little-endian).
    Exit = 34,
    /// Stream, to the process: input.
    Stdin = 64,
    /// Stream, to the process: no more input.
    CloseStdin = 65,
    /// Stream, to the process: terminal size, columns and rows as `u16` little-endian.
    Resize = 66,
    /// Stream, from the process.
    Stdout = 67,
    /// Stream, from the process.
    Stderr = 68,
}

impl Kind {
    /// The kind of that number.
    pub fn from_byte(byte: u8) -> Option<Kind> {
        use Kind::*;
        [
            Start, Signal, Exec, Attach, ReopenLog, Wait, Quit, Ok, Error, Exit, Stdin, CloseStdin, Resize,
            Stdout, Stderr,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// Appends a frame to `out`.
pub fn put(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    out.reserve(HEADER + payload.len());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.push(kind as u8);
    out.extend_from_slice(payload);
}

/// A request frame.
pub fn request(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(1 + body.len());
    payload.push(VERSION);
    payload.extend_from_slice(body);
    let mut out = Vec::new();
    put(&mut out, kind, &payload);
    out
}

/// A frame at the head of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// More bytes are needed.
    Incomplete,
    /// A frame and the bytes that it takes in the buffer.
    Frame(Kind, &'a [u8], usize),
    /// The peer speaks something else.
    Malformed,
}

/// Reads the frame at the head of `buffer`.
pub fn parse(buffer: &[u8]) -> Parsed<'_> {
    let Some((header, rest)) = buffer.split_at_checked(HEADER) else { return Parsed::Incomplete };
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let Some(kind) = Kind::from_byte(header[4]) else { return Parsed::Malformed };
    if length > MAX_PAYLOAD {
        return Parsed::Malformed;
    }
    match rest.get(..length) {
        Some(payload) => Parsed::Frame(kind, payload, HEADER + length),
        None => Parsed::Incomplete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire() {
        let mut bytes = Vec::new();
        put(&mut bytes, Kind::Stdout, b"hello");
        assert_eq!(parse(&bytes), Parsed::Frame(Kind::Stdout, b"hello", 10));
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Parsed::Incomplete);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(parse(&[0, 0, 0, 0, 200]), Parsed::Malformed);
        assert_eq!(parse(&[0xff, 0xff, 0xff, 0xff, Kind::Stdin as u8]), Parsed::Malformed);
    }
}
