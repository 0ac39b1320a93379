//! What runs inside the test's containers.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// Does what the words say.
pub fn run(words: &[String]) -> ExitCode {
    let word = |index: usize| words.get(index).map_or("", String::as_str);
    match word(0) {
        "sleep" => std::thread::sleep(Duration::from_secs(600)),
        "print" => println!("{}", words[1..].join(" ")),
        "both" => {
            println!("out");
            eprintln!("err");
        }
        "exit" => return ExitCode::from(word(1).parse::<u8>().unwrap_or(1)),
        "cat" => {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::stdout());
        }
        "show" => {
            for path in &words[1..] {
                match std::fs::read_to_string(path) {
                    Ok(text) => print!("{text}"),
                    Err(error) => println!("{path}: {error}"),
                }
            }
        }
        "list" => {
            for entry in std::fs::read_dir(word(1)).into_iter().flatten().flatten() {
                println!("{}", entry.file_name().to_string_lossy());
            }
        }
        "write" => {
            if let Err(error) = std::fs::write(word(1), word(2)) {
                println!("{error}");
                return ExitCode::FAILURE;
            }
        }
        "env" => std::env::vars().for_each(|(name, value)| println!("{name}={value}")),
        "pid" => println!("{}", std::process::id()),
        "size" => println!("{}", terminal_size()),
        "call" => return forbidden(word(1)),
        "eat" => {
            let mut eaten: Vec<Vec<u8>> = Vec::new();
            loop {
                eaten.push(vec![1; 1 << 20]);
            }
        }
        "serve" => serve(word(1)),
        "fetch" => return fetch(word(1)),
        _ => return ExitCode::from(99),
    }
    ExitCode::SUCCESS
}

fn terminal_size() -> String {
    // SAFETY: winsize is plain old data, and the ioctl fills it.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        libc::ioctl(0, libc::TIOCGWINSZ, &mut size);
        format!("{}x{} tty={}", size.ws_col, size.ws_row, libc::isatty(0))
    }
}

/// Prints how the kernel answers a call that the default profile treats in a certain way.
fn forbidden(call: &str) -> ExitCode {
    // SAFETY: calls with harmless or null arguments.
    let answer = unsafe {
        match call {
            "unshare" => libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER),
            "clone3" => libc::syscall(libc::SYS_clone3, 0, 0),
            "keyctl" => libc::syscall(libc::SYS_keyctl, 0, 0, 0, 0, 0),
            _ => libc::syscall(libc::SYS_getpid),
        }
    };
    println!("{}", if answer < 0 { std::io::Error::last_os_error().raw_os_error().unwrap_or(0) } else { 0 });
    ExitCode::SUCCESS
}

fn serve(port: &str) {
    let Ok(listener) = TcpListener::bind(format!("0.0.0.0:{port}")) else { return };
    for stream in listener.incoming().flatten() {
        let mut stream = stream;
        let _ = stream.write_all(b"hello from the pod");
    }
}

fn fetch(address: &str) -> ExitCode {
    let Ok(address) = address.parse() else { return ExitCode::FAILURE };
    for _ in 0..50 {
        if let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
            let mut text = String::new();
            let _ = stream.read_to_string(&mut text);
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    ExitCode::FAILURE
}
