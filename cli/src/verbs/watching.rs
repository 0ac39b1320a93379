//! Looks at one object again and again, whenever it changes.

use std::time::Duration;

use client::core::object::Target;
use client::params::ListParams;
use client::watch::RawEvent;
use serde_json::Value;
use tokio::time::Instant;

use super::error::Result;
use super::session::text_at;

/// How long a watch that ended is waited for before the next one.
const PAUSE: Duration = Duration::from_millis(500);

/// Calls `look` with the object (`None`: it does not exist) now and after each change, until it returns something.
/// `None`: the time was up.
pub async fn until<T>(
    client: &client::Client,
    target: &Target,
    timeout: Option<Duration>,
    look: impl FnMut(Option<&Value>) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let Some(timeout) = timeout else { return run(client, target, look).await.map(Some) };
    let deadline = Instant::now() + timeout;
    match tokio::time::timeout_at(deadline, run(client, target, look)).await {
        Ok(answer) => answer.map(Some),
        Err(_) => Ok(None),
    }
}

async fn run<T>(
    client: &client::Client,
    target: &Target,
    mut look: impl FnMut(Option<&Value>) -> Result<Option<T>>,
) -> Result<T> {
    let selector = format!("metadata.name={}", target.key.name);
    loop {
        let params = ListParams::all().fields(selector.as_str());
        let list = client.list_page(&target.resource, target.key.namespace_opt(), &params).await?;
        let item = list.get("items").and_then(Value::as_array).and_then(|items| items.first());
        if let Some(answer) = look(item)? {
            return Ok(answer);
        }
        let params = ListParams {
            resource_version: Some(text_at(&list, "/metadata/resourceVersion").to_owned()),
            ..params
        };
        drop(list);
        if let Some(answer) = follow(client, target, &params, &mut look).await? {
            return Ok(answer);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// One watch, to its end.
async fn follow<T>(
    client: &client::Client,
    target: &Target,
    params: &ListParams,
    look: &mut impl FnMut(Option<&Value>) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let watch = client.watch(&target.resource, target.key.namespace_opt(), params, None).await;
    let mut lines = match watch {
        Err(error) if error.is_expired() => return Ok(None),
        watch => watch?,
    };
    while let Ok(Some(batch)) = lines.next_batch().await {
        for line in batch {
            let Ok(event) = RawEvent::parse(&line) else { continue };
            let answer = match &*event.kind {
                "ADDED" | "MODIFIED" => match serde_json::from_str::<Value>(event.object.get()) {
                    Ok(object) => look(Some(&object))?,
                    Err(_) => None,
                },
                "DELETED" => look(None)?,
                "ERROR" => return Ok(None),
                _ => None,
            };
            if answer.is_some() {
                return Ok(answer);
            }
        }
    }
    Ok(None)
}

/// Reads a duration as Go writes them: `90s`, `1h30m`, `250ms`; a number alone is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("invalid duration {text:?}");
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds.abs()).map_err(|_| invalid());
    }
    let mut rest = text.strip_prefix('-').unwrap_or(text);
    let mut total = 0.0;
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(invalid()),
        };
        total += number * seconds;
        rest = next;
    }
    Duration::try_from_secs_f64(total).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check =
            |text: &str, millis: u64| assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        check("90s", 90_000);
        check("1h30m", 5_400_000);
        check("250ms", 250);
        check("1.5m", 90_000);
        check("30", 30_000);
        for bad in ["", "x", "5q", "s", "1h x"] {
            duration(bad).expect_err(bad);
        }
    }
}
