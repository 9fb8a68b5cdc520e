//! Ctrl-C and SIGTERM while guests run: noticed, so that the emulators are ended first.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Result, bail};

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Errors once a signal has come. The first call begins to watch for them.
pub(crate) fn check() -> Result<()> {
    let flag = FLAG.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // Without a handler the signal ends this process, and the emulators with it (qemu.rs).
            let _ = signal_hook::flag::register(signal, Arc::clone(&flag));
        }
        flag
    });
    if flag.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}
