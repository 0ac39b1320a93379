//! What containers of the tests run: a web server and small commands, in an image without a shell.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use e2e::https::Api;

const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const AUTHORITY: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
const CONNECT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().collect();
    let called = arguments.remove(0);
    if called.ends_with("tar") {
        arguments.insert(0, "tar".to_owned());
    }
    match steps(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("tool: {error:#}");
            ExitCode::from(99)
        }
    }
}

/// Runs the commands between the `,` one after the other until one fails; the status of the last.
fn steps(arguments: &[String]) -> Result<u8> {
    for step in arguments.split(|word| word == ",") {
        let words: Vec<&str> = step.iter().map(String::as_str).collect();
        let code = run(&words)?;
        if code != 0 {
            return Ok(code);
        }
    }
    Ok(0)
}

fn run(words: &[&str]) -> Result<u8> {
    match words {
        ["echo", words @ ..] => println!("{}", words.join(" ")),
        ["warn", words @ ..] => eprintln!("{}", words.join(" ")),
        ["env", names @ ..] => {
            names.iter().for_each(|name| println!("{name}={}", std::env::var(name).unwrap_or_default()));
        }
        ["cat", paths @ ..] => {
            for path in paths {
                print!("{}", std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?);
            }
        }
        ["write", path, words @ ..] => std::fs::write(path, words.join(" "))?,
        ["has", path] => return Ok(u8::from(!std::path::Path::new(path).exists())),
        ["remove", path] => std::fs::remove_file(path)?,
        ["maps"] => print!("{}", std::fs::read_to_string("/proc/self/maps")?),
        ["exit", code] => return Ok(code.parse()?),
        ["sleep", seconds] => std::thread::sleep(Duration::from_secs_f64(seconds.parse()?)),
        ["count", until] => {
            for number in 1..=until.parse::<u64>()? {
                println!("line {number}");
            }
        }
        ["upper"] => {
            for line in std::io::stdin().lock().lines() {
                println!("{}", line?.to_uppercase());
            }
        }
        ["resolve", name] => {
            let mut found: Vec<String> =
                (*name, 0).to_socket_addrs()?.map(|one| one.ip().to_string()).collect();
            found.sort();
            found.dedup();
            println!("{}", found.join(" "));
        }
        ["fetch", url] => print!("{}", fetch(url)?),
        ["api", host, path] => {
            let api = Api::new(host, 443, &std::fs::read(AUTHORITY)?, None)?;
            let answer = api.with_token(std::fs::read_to_string(TOKEN)?.trim()).get(path)?;
            println!("{} {}", answer.status, answer.text());
        }
        ["tar", "cf", "-", path] => pack(path)?,
        ["tar", "-xmf" | "xmf" | "-xf" | "xf", "-", "-C", folder] => {
            tar::Archive::new(std::io::stdin().lock()).unpack(folder)?;
        }
        ["serve"] => serve("0.0.0.0", 8080)?,
        ["serve", port] => serve("0.0.0.0", port.parse()?)?,
        ["serve", port, address] => serve(address, port.parse()?)?,
        other => bail!("unknown command {other:?}"),
    }
    Ok(0)
}

/// Writes an archive of a file or folder to standard output.
fn pack(path: &str) -> Result<()> {
    let mut archive = tar::Builder::new(std::io::stdout().lock());
    let name = path.trim_start_matches('/');
    match std::fs::metadata(path).with_context(|| format!("reading {path}"))?.is_dir() {
        true => archive.append_dir_all(name, path)?,
        false => archive.append_path_with_name(path, name)?,
    }
    Ok(archive.into_inner()?.flush()?)
}

/// The body of `http://HOST[:PORT]/PATH`.
fn fetch(url: &str) -> Result<String> {
    let rest = url.strip_prefix("http://").context("not an http URL")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let address = host.to_socket_addrs()?.next().with_context(|| format!("{host} has no address"))?;
    let mut stream =
        TcpStream::connect_timeout(&address, CONNECT).with_context(|| format!("connecting to {address}"))?;
    stream.set_read_timeout(Some(CONNECT))?;
    write!(stream, "GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(|| anyhow!("no complete answer"))?;
    Ok(body.to_owned())
}

/// Answers with the pod's name; `/healthy` is 503 while there is a file `/tmp/sick`.
fn serve(address: &str, port: u16) -> Result<()> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned();
    let listener = TcpListener::bind((address, port))?;
    println!("{name} listens on {port}");
    for stream in listener.incoming() {
        let name = name.clone();
        // A client that has gone misses its answer.
        std::thread::spawn(move || stream.map(|stream| answer(stream, &name)));
    }
    Ok(())
}

fn answer(mut stream: TcpStream, name: &str) -> Result<()> {
    let mut request = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    request.read_line(&mut first)?;
    let mut line = String::new();
    while request.read_line(&mut line)? > 2 {
        line.clear();
    }
    let sick = first.contains("/healthy") && std::path::Path::new("/tmp/sick").exists();
    let status = if sick { "503 Service Unavailable" } else { "200 OK" };
    let body = format!("{name} {}\n", stream.peer_addr()?.ip());
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())?;
    Ok(())
}
