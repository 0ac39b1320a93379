//! SPDY/3.1 frames: the few that Kubernetes uses.
//!
//! The reader is public for the fuzz targets: it is what takes a stranger's bytes first.

use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::dictionary;

/// The largest control frame that a client may send. Data frames may be as large as their length says.
const MAX_CONTROL: usize = 64 * 1024;
/// The largest header block, once it is decompressed.
const MAX_HEADERS: usize = 64 * 1024;
/// The largest data frame that is sent; larger ones are received in pieces of this size.
const MAX_DATA: usize = 32 * 1024;

const CONTROL: u16 = 0x8003;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const FIN: u8 = 1;

/// The status of a stream that is not taken.
pub(in crate::streams) const REFUSED: u32 = 3;

/// A frame that matters.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// The client opens a stream.
    Open {
        /// Its number.
        stream: u32,
        /// Its headers.
        headers: Vec<(String, String)>,
        /// The client sends nothing on it.
        fin: bool,
    },
    /// Bytes of a stream.
    Data {
        /// The stream's number.
        stream: u32,
        /// The bytes.
        bytes: Bytes,
        /// They are the last.
        fin: bool,
    },
    /// The client gives a stream up.
    Reset {
        /// Its number.
        stream: u32,
    },
    /// To be sent back as it is.
    Ping {
        /// What it carries.
        id: u32,
    },
    /// Nothing that matters.
    Other,
}

/// Why a connection cannot be read any more.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
    /// A control frame beyond reason.
    #[error("a frame of {0} bytes is too large")]
    TooLarge(usize),
    /// Headers that do not decompress, or are none.
    #[error("a header block cannot be read")]
    Headers,
    /// A control frame without what its kind has.
    #[error("a frame is too short")]
    Short,
}

/// Reads frames.
pub struct Reader<R> {
    io: R,
    headers: Decompress,
    knows_dictionary: bool,
    /// What is left of a data frame.
    rest: Option<Rest>,
}

/// The part of a data frame that was not read yet.
#[derive(Clone, Copy)]
struct Rest {
    stream: u32,
    length: usize,
    fin: bool,
}

/// Makes frames.
pub(in crate::streams) struct Writer {
    headers: Compress,
}

// === impl Reader ===

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads what comes from `io`, from its first byte on.
    pub fn new(io: R) -> Reader<R> {
        Reader { io, headers: Decompress::new(true), knows_dictionary: false, rest: None }
    }

    /// The next frame; `None` when the client closed the connection between two frames.
    ///
    /// # Errors
    /// When the connection fails, or carries something else than frames: nothing can be read after that.
    pub async fn next(&mut self) -> Result<Option<Frame>, WireError> {
        if let Some(rest) = self.rest.take() {
            return self.piece(rest).await.map(Some);
        }
        let mut head = [0; 8];
        match self.io.read_exact(&mut head).await {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let [a, b, c, d, flags, e, f, g] = head;
        let length = u32::from_be_bytes([0, e, f, g]) as usize;
        let fin = flags & FIN != 0;
        if a & 0x80 == 0 {
            let stream = u32::from_be_bytes([a, b, c, d]);
            return self.piece(Rest { stream, length, fin }).await.map(Some);
        }
        if length > MAX_CONTROL {
            return Err(WireError::TooLarge(length));
        }
        let mut payload = BytesMut::zeroed(length);
        self.io.read_exact(&mut payload).await?;
        let payload = payload.freeze();
        let first = || {
            let word = payload.first_chunk::<4>().ok_or(WireError::Short)?;
            Ok::<_, WireError>(u32::from_be_bytes(*word))
        };
        Ok(Some(match u16::from_be_bytes([c, d]) {
            SYN_STREAM => {
                let block = payload.get(10..).ok_or(WireError::Short)?;
                Frame::Open { stream: first()? & 0x7fff_ffff, headers: self.block(block)?, fin }
            }
            // The blocks share one compression: none may be skipped.
            SYN_REPLY | HEADERS => {
                self.block(payload.get(4..).ok_or(WireError::Short)?)?;
                Frame::Other
            }
            RST_STREAM => Frame::Reset { stream: first()? & 0x7fff_ffff },
            PING => Frame::Ping { id: first()? },
            _ => Frame::Other,
        }))
    }

    /// Reads the next piece of a data frame; only the last one ends the stream.
    async fn piece(&mut self, rest: Rest) -> Result<Frame, WireError> {
        let mut bytes = BytesMut::zeroed(rest.length.min(MAX_DATA));
        self.io.read_exact(&mut bytes).await?;
        let left = rest.length - bytes.len();
        if left > 0 {
            self.rest = Some(Rest { length: left, ..rest });
        }
        Ok(Frame::Data { stream: rest.stream, bytes: bytes.freeze(), fin: rest.fin && left == 0 })
    }

    fn block(&mut self, packed: &[u8]) -> Result<Vec<(String, String)>, WireError> {
        let mut plain = vec![0; MAX_HEADERS];
        let before = (self.headers.total_in(), self.headers.total_out());
        loop {
            let used = (self.headers.total_in() - before.0) as usize;
            let made = (self.headers.total_out() - before.1) as usize;
            if used == packed.len() || made == plain.len() {
                break;
            }
            match self.headers.decompress(&packed[used..], &mut plain[made..], FlushDecompress::Sync) {
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() && !self.knows_dictionary => {
                    self.knows_dictionary = true;
                    self.headers.set_dictionary(&dictionary::bytes()).map_err(|_| WireError::Headers)?;
                    continue;
                }
                Err(_) => return Err(WireError::Headers),
            }
            if (self.headers.total_in() - before.0) as usize == used {
                return Err(WireError::Headers);
            }
        }
        let made = (self.headers.total_out() - before.1) as usize;
        pairs(&plain[..made]).ok_or(WireError::Headers)
    }
}

/// Reads a decompressed header block.
fn pairs(mut block: &[u8]) -> Option<Vec<(String, String)>> {
    let count = word(&mut block)?;
    let mut pairs = Vec::new();
    for _ in 0..count {
        pairs.push((text(&mut block)?, text(&mut block)?));
    }
    Some(pairs)
}

fn word(block: &mut &[u8]) -> Option<u32> {
    let (head, rest) = block.split_first_chunk::<4>()?;
    *block = rest;
    Some(u32::from_be_bytes(*head))
}

fn text(block: &mut &[u8]) -> Option<String> {
    let length = word(block)? as usize;
    let (head, rest) = block.split_at_checked(length)?;
    *block = rest;
    String::from_utf8(head.to_vec()).ok()
}

// === impl Writer ===

impl Writer {
    /// A writer whose header compression starts with the dictionary; `None` when zlib refuses it.
    pub(in crate::streams) fn new() -> Option<Writer> {
        let mut headers = Compress::new(Compression::fast(), true);
        headers.set_dictionary(&dictionary::bytes()).ok()?;
        Some(Writer { headers })
    }

    /// Accepts a stream that the client opened.
    pub(in crate::streams) fn reply(&mut self, stream: u32) -> Option<Bytes> {
        let block = self.block(&[])?;
        let mut out = control(SYN_REPLY, 4 + block.len());
        out.put_u32(stream);
        out.extend_from_slice(&block);
        Some(out.freeze())
    }

    fn block(&mut self, pairs: &[(&str, &str)]) -> Option<Vec<u8>> {
        let mut plain = Vec::new();
        plain.extend_from_slice(&(pairs.len() as u32).to_be_bytes());
        for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&(text.len() as u32).to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        // Room for the worst case, so that one call takes everything.
        let mut packed = Vec::with_capacity(plain.len() + 128);
        self.headers.compress_vec(&plain, &mut packed, FlushCompress::Sync).ok()?;
        Some(packed)
    }
}

/// Bytes of a stream, in frames of a good size.
pub(in crate::streams) fn data(stream: u32, bytes: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(bytes.len() + 8 * (1 + bytes.len() / MAX_DATA));
    for piece in bytes.chunks(MAX_DATA) {
        out.put_u32(stream);
        out.put_u32(piece.len() as u32);
        out.extend_from_slice(piece);
    }
    out.freeze()
}

/// The end of a stream.
pub(in crate::streams) fn fin(stream: u32) -> Bytes {
    let mut out = BytesMut::with_capacity(8);
    out.put_u32(stream);
    out.put_u32(u32::from(FIN) << 24);
    out.freeze()
}

/// Gives a stream up.
pub(in crate::streams) fn reset(stream: u32, status: u32) -> Bytes {
    let mut out = control(RST_STREAM, 8);
    out.put_u32(stream);
    out.put_u32(status);
    out.freeze()
}

/// The answer to a ping.
pub(in crate::streams) fn pong(id: u32) -> Bytes {
    let mut out = control(PING, 4);
    out.put_u32(id);
    out.freeze()
}

/// The end of the connection.
pub(in crate::streams) fn goaway(last: u32) -> Bytes {
    let mut out = control(GOAWAY, 8);
    out.put_u32(last);
    out.put_u32(0);
    out.freeze()
}

fn control(kind: u16, length: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(8 + length);
    out.put_u16(CONTROL);
    out.put_u16(kind);
    out.put_u32(length as u32);
    out
}

/// What a client would send to open a stream.
#[cfg(test)]
pub(in crate::streams) fn open(writer: &mut Writer, stream: u32, headers: &[(&str, &str)]) -> Bytes {
    let block = writer.block(headers).expect("compressed");
    let mut out = control(SYN_STREAM, 10 + block.len());
    out.put_u32(stream);
    out.put_u32(0);
    out.put_u16(0);
    out.extend_from_slice(&block);
    out.freeze()
}
