//! Waiting without a bet on how fast the machine is.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long to wait for what must come: longer than any loaded machine needs, so that only what never comes fails.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// Asks again and again until there is an answer.
///
/// # Errors
/// What `ask` says instead of an answer, or, after [`PATIENCE`], that `what` did not happen.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if start.elapsed() > PATIENCE {
            bail!("waited {} s in vain: {what}", PATIENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
