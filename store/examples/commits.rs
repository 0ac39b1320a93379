//! How many durable writes a second one store takes: `commits DIR [WAITERS] [SECONDS] [VALUE_BYTES]`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use store::{Key, Options, Store, Txn};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("which directory?")?;
    let mut number = |default: u64| args.next().map_or(Ok(default), |arg| arg.parse());
    let (waiters, seconds, bytes) = (number(64)?, number(3)?, number(1024)?);
    let begun = Instant::now();
    let store = Store::open(Options::new(dir, Key::new(1, [1; 32])))?;
    println!("open: {:?}, {} keys", begun.elapsed(), store.snapshot().len());
    let count = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + Duration::from_secs(seconds);
    let tasks: Vec<_> = (0..waiters)
        .map(|waiter| {
            let (store, count) = (store.clone(), count.clone());
            let value = bytes::Bytes::from(vec![b'x'; bytes as usize]);
            tokio::spawn(async move {
                let mut times = Vec::new();
                while Instant::now() < until {
                    let number = count.fetch_add(1, Ordering::Relaxed);
                    let key = format!("/core/things/{waiter}/{}", number % 20_000);
                    let begun = Instant::now();
                    if store.commit(Txn::put(key, value.clone())).await.is_err() {
                        break;
                    }
                    times.push(begun.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await?);
    }
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    println!(
        "{} commits/s, p50 {:?}, p99 {:?}, slowest {:?}",
        times.len() as u64 / seconds.max(1),
        at(0.5),
        at(0.99),
        times.last().copied().unwrap_or_default()
    );
    store.close().await;
    Ok(())
}
