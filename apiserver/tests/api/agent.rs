//! An agent's end of the tunnel, for tests: echoes, counts, fails on request.

use std::net::SocketAddr;
use std::sync::Mutex;

use hyper_util::rt::TokioIo;
use proto::tunnel::{Exit, Failure, Frame, Hello, Open, frame, open, tunnel_client::TunnelClient};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tonic::{Request, transport::Channel, transport::Endpoint};

use crate::support::Cluster;

/// The port of a pod that refuses connections; all others echo.
pub const REFUSED: u16 = 1;

type Client = TunnelClient<Channel>;

/// Listens as `node` until the value is dropped.
pub struct Agent {
    task: tokio::task::JoinHandle<()>,
}

impl Agent {
    pub async fn start(cluster: &Cluster, node: &str) -> Agent {
        Agent::in_front_of(cluster, node, SocketAddr::from(([127, 0, 0, 1], 1))).await
    }

    /// Whatever address is dialed, and the agent's own API, leads to `backend`.
    pub async fn in_front_of(cluster: &Cluster, node: &str, backend: SocketAddr) -> Agent {
        let client = connect(cluster, node).await;
        let (opens, listening) = listen(client.clone(), node).await;
        let task = tokio::spawn(async move {
            let _hellos = listening;
            serve(client, opens, backend).await;
        });
        Agent { task }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A channel with the node's certificate.
pub async fn connect(cluster: &Cluster, node: &str) -> Client {
    let issued = cluster.authority.issue_node(node).expect("issued");
    let stream = Mutex::new(Some(TokioIo::new(cluster.connect(Some(&issued), "h2").await)));
    let channel = Endpoint::from_static("http://kubernetes")
        .connect_with_connector(tower::service_fn(move |_| {
            let stream = stream.lock().expect("locked").take();
            async { stream.ok_or(std::io::Error::other("one connection only")) }
        }))
        .await
        .expect("connected");
    TunnelClient::new(channel)
}

/// Starts listening; the sender keeps the tunnel open.
pub async fn listen(mut client: Client, node: &str) -> (tonic::Streaming<Open>, mpsc::Sender<Hello>) {
    let (hellos, stream) = mpsc::channel(1);
    hellos.send(Hello { node: node.into() }).await.expect("sent");
    let answer = client.listen(outgoing(stream)).await.expect("listening");
    (answer.into_inner(), hellos)
}

fn outgoing<T: Send + 'static>(receiver: mpsc::Receiver<T>) -> impl futures::Stream<Item = T> + Send {
    futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
}

async fn serve(client: Client, mut opens: tonic::Streaming<Open>, backend: SocketAddr) {
    while let Ok(Some(open)) = opens.message().await {
        tokio::spawn(session(client.clone(), open, backend));
    }
}

async fn session(mut client: Client, open: Open, backend: SocketAddr) {
    let (frames, stream) = mpsc::channel(16);
    let mut request = Request::new(outgoing(stream));
    request.metadata_mut().insert("orlop-session", open.session.into());
    let send = async |frame| drop(frames.send(Frame { frame: Some(frame) }).await);
    let refusal = |message: &str| frame::Frame::Failure(Failure { code: 400, message: message.into() });
    let dialed = match &open.request {
        Some(open::Request::Dial(_) | open::Request::Node(_)) => Some(TcpStream::connect(backend).await),
        _ => None,
    };
    // The first frame may go out before the server's answer arrives.
    match &open.request {
        _ if matches!(dialed, Some(Err(_))) => send(refusal("connection refused")).await,
        Some(open::Request::PortForward(forward)) if forward.port == u32::from(REFUSED) => {
            send(refusal("connection refused")).await
        }
        Some(open::Request::Exec(exec)) if exec.command == ["refuse"] => {
            send(refusal("no such command")).await
        }
        _ => send(frame::Frame::Ready(true)).await,
    }
    let Ok(answer) = client.session(request).await else { return };
    let mut incoming = answer.into_inner();
    match open.request {
        Some(open::Request::Exec(exec)) if exec.command.first().is_some_and(|name| name == "exit") => {
            send(frame::Frame::Stdout(b"out\n".to_vec())).await;
            send(frame::Frame::Stderr(b"err\n".to_vec())).await;
            let code = exec.command.get(1).and_then(|code| code.parse().ok()).unwrap_or(0);
            send(frame::Frame::Exit(Exit { code })).await;
        }
        // Echoes its input until that ends.
        Some(open::Request::Exec(_) | open::Request::Attach(_)) => {
            while let Ok(Some(Frame { frame: Some(said) })) = incoming.message().await {
                match said {
                    frame::Frame::Stdin(bytes) => send(frame::Frame::Stdout(bytes)).await,
                    frame::Frame::Resize(size) => {
                        let text = format!("{}x{}\n", size.width, size.height);
                        send(frame::Frame::Stdout(text.into_bytes())).await;
                    }
                    frame::Frame::CloseStdin(_) => break,
                    _ => {}
                }
            }
            send(frame::Frame::Exit(Exit { code: 0 })).await;
        }
        Some(open::Request::Logs(logs)) => {
            let tail = logs.tail_lines.unwrap_or(2);
            for line in 0..tail {
                send(frame::Frame::Data(format!("line {line}\n").into_bytes())).await;
            }
            if logs.follow {
                // Goes on until the client does not listen any more.
                while let Ok(Some(_)) = incoming.message().await {}
            }
        }
        // Echoes what it is sent until that ends, then takes its leave.
        Some(open::Request::PortForward(forward)) if forward.port != u32::from(REFUSED) => {
            while let Ok(Some(Frame { frame: Some(said) })) = incoming.message().await {
                match said {
                    frame::Frame::Data(bytes) => send(frame::Frame::Data(bytes)).await,
                    _ => break,
                }
            }
            send(frame::Frame::Data(b"bye".to_vec())).await;
            send(frame::Frame::End(true)).await;
        }
        Some(open::Request::Dial(_) | open::Request::Node(_)) => {
            if let Some(Ok(stream)) = dialed {
                join(stream, incoming, &frames).await;
                return;
            }
        }
        _ => {}
    }
    // The answer is read to its end: giving it up earlier would take back what was sent.
    drop(frames);
    while let Ok(Some(_)) = incoming.message().await {}
}

/// Carries a connection until the server lets go of the session.
async fn join(stream: TcpStream, mut incoming: tonic::Streaming<Frame>, frames: &mpsc::Sender<Frame>) {
    let (mut read, mut write) = stream.into_split();
    let outbound = async {
        let mut chunk = vec![0; 4096];
        while let Ok(count @ 1..) = read.read(&mut chunk).await {
            let frame = Some(frame::Frame::Data(chunk[..count].to_vec()));
            if frames.send(Frame { frame }).await.is_err() {
                return;
            }
        }
        let _ = frames.send(Frame { frame: Some(frame::Frame::End(true)) }).await;
        std::future::pending().await
    };
    let inbound = async {
        while let Ok(Some(Frame { frame })) = incoming.message().await {
            match frame {
                Some(frame::Frame::Data(bytes)) => drop(write.write_all(&bytes).await),
                Some(frame::Frame::End(_)) => drop(write.shutdown().await),
                _ => {}
            }
        }
    };
    tokio::select! {
        () = outbound => {}
        () = inbound => {}
    }
}
