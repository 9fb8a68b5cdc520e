//! The counter as a TCG plugin. Options: `out=FILE` (the lines), `fast=BYTES` (physical memory below is fast), `size=BYTES` and
//! `ways=N` of the cache.
//!
//! QEMU calls on each load and store of the guest. In virtual time the processors take turns on one thread, so the lock is never waited
//! for.

use std::fs::File;
use std::io::Write as _;
use std::sync::{Mutex, OnceLock, PoisonError};

use misses::cache::Cache;
use misses::counter::{Access, Counter};
use qemu_plugin::install::{Args, Info};
use qemu_plugin::plugin::{HasCallbacks, Register};
use qemu_plugin::{MemRW, MemoryInfo, PluginId, Result, TranslationBlock};

static COUNTING: OnceLock<Mutex<Counting>> = OnceLock::new();

struct Counting {
    counter: Counter,
    out: File,
}

struct Plugin;

impl Register for Plugin {
    fn register(&mut self, _: PluginId, args: &Args, _: &Info) -> Result<()> {
        let counting = Counting::new(&args.raw).unwrap_or_else(|error| {
            // The interface takes no words with a refusal.
            let _ = writeln!(std::io::stderr(), "misses-plugin: {error}");
            std::process::exit(2)
        });
        let _ = COUNTING.set(Mutex::new(counting));
        Ok(())
    }
}

impl HasCallbacks for Plugin {
    fn on_translation_block_translate(&mut self, _: PluginId, block: TranslationBlock<'_>) -> Result<()> {
        for instruction in block.instructions() {
            instruction.register_memory_access_callback(
                |_, info, address| accessed(&info, address),
                MemRW::QEMU_PLUGIN_MEM_RW,
            );
        }
        Ok(())
    }
}

fn accessed(info: &MemoryInfo<'_>, address: u64) {
    let Some(counting) = COUNTING.get() else { return };
    let mut counting = counting.lock().unwrap_or_else(PoisonError::into_inner);
    let access = if info.is_store() { Access::Store } else { Access::Load };
    let physical = || info.hwaddr(address).filter(|at| !at.is_io()).map(|at| at.hwaddr());
    if let Some(line) = counting.counter.access(address, access, physical) {
        counting.write(&line);
    }
}

impl Counting {
    fn new(options: &[String]) -> std::result::Result<Self, String> {
        let option = |name: &str| {
            let found = options.iter().find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
            found.ok_or_else(|| format!("the option {name} is missing"))
        };
        let number = |name: &str| {
            let text = option(name)?;
            text.parse::<u64>().map_err(|_| format!("{name}={text} is no number"))
        };
        let ways = usize::try_from(number("ways")?).map_err(|error| error.to_string())?;
        let counter = Counter::new(Cache::new(number("size")?, ways)?, number("fast")?);
        let out = option("out")?;
        let out = File::create(out).map_err(|error| format!("{out}: {error}"))?;
        Ok(Self { counter, out })
    }

    fn write(&mut self, line: &misses::line::Line) {
        // Who reads finds a line missing and says so.
        let _ = writeln!(self.out, "{}", line.to_json());
    }
}

qemu_plugin::register!(Plugin);
