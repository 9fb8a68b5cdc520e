//! One guest: QEMU as the machine that was asked for, its console read line by line, ended whatever happens.

mod hardware;
mod program;

use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use thermocline_tests::node::{ADDRESS, GATEWAY, NETWORK};
use thermocline_tests::scenario::{Kernel, Machine};
use xtask_front::quiet;

use crate::interrupt;
pub(crate) use program::Qemu;

/// Wall time within which a guest must have said something: seconds, but minutes where the machine has much else to do.
const BOOT_LIMIT: Duration = Duration::from_mins(5);

/// `COMMAND_LINE_SIZE` of x86.
const COMMAND_LINE: usize = 2048;

/// A guest to boot.
pub(crate) struct Guest {
    pub(crate) qemu: Qemu,
    pub(crate) machine: Machine,
    pub(crate) vmlinuz: PathBuf,
    pub(crate) initramfs: PathBuf,
    /// `None`: a shell.
    pub(crate) scenario: Option<String>,
    /// Of the files that it leaves on the host: the scenario's, where it is not one of several of the same.
    pub(crate) name: String,
    /// The host's clock instead of virtual time (docs/decisions/virtual-time.md).
    pub(crate) realtime: bool,
    /// Leaves the kernel's own messages on the console.
    pub(crate) kernel_messages: bool,
    /// Its network; without it the guest has none.
    pub(crate) network: Option<Network>,
    /// More words for the kernel's command line, by which scenarios are asked for something.
    pub(crate) arguments: Vec<String>,
    /// A TCG plugin with its options.
    pub(crate) plugin: Option<String>,
}

/// A network of the emulator and the guest alone, with one way out.
pub(crate) struct Network {
    /// What the guest connects to.
    pub(crate) address: (Ipv4Addr, u16),
    /// The command whose standard input and output each connection is.
    pub(crate) relay: String,
}

/// Ends the emulator when dropped.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Guest {
    /// Boots it and hands each console line to `line`, until it powers off.
    ///
    /// # Errors
    /// When QEMU fails, on `wall_limit`, or when this task is interrupted; the guest is gone in each case.
    pub(crate) fn run(&self, wall_limit: Duration, mut line: impl FnMut(&str)) -> Result<()> {
        interrupt::check()?;
        let mut command = self.command()?;
        command.args(["-serial", "stdio"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut emulator = Emulator(command.spawn().context("cannot start QEMU")?);
        let stdout = emulator.0.stdout.take().context("stdout")?;
        let stderr = emulator.0.stderr.take().context("stderr")?;
        let errors = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap_or_default());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    break;
                }
            }
        });
        let start = Instant::now();
        let mut booted = false;
        loop {
            match lines.recv_timeout(Duration::from_millis(100)) {
                Ok(text) => {
                    booted = true;
                    line(&text);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            interrupt::check()?;
            ensure!(
                booted || start.elapsed() < BOOT_LIMIT,
                "not a word from the guest in {} s of wall time: the kernel did not boot (see it with --verbose)",
                BOOT_LIMIT.as_secs()
            );
            ensure!(
                start.elapsed() < wall_limit,
                "no end after {} s of wall time: QEMU was ended; the last lines of its console say where it hung",
                wall_limit.as_secs()
            );
        }
        let status = emulator.0.wait()?;
        if !status.success() {
            bail!("QEMU ended with {status}: {}", errors.join().unwrap_or_default());
        }
        Ok(())
    }

    /// Boots it on this terminal; Ctrl-A X ends it.
    pub(crate) fn run_on_terminal(&self) -> Result<()> {
        let _its_own = quiet::hush();
        let mut command = self.command()?;
        let mut emulator =
            Emulator(command.args(["-serial", "mon:stdio"]).spawn().context("cannot start QEMU")?);
        let status = emulator.0.wait()?;
        ensure!(status.success(), "QEMU ended with {status}");
        Ok(())
    }

    fn command(&self) -> Result<Command> {
        // The kernel ends the emulator when the thread that started it ends, even by SIGKILL.
        let mut command = self.qemu.command_by(&[crate::tools::SETPRIV.program, "--pdeathsig", "KILL", "--"]);
        let accelerator: &[&str] = if self.realtime {
            &["-accel", "tcg,thread=multi"]
        } else {
            &["-accel", "tcg,thread=single", "-icount", "shift=2,sleep=off"]
        };
        command.args(accelerator);
        // In virtual time kernel 6.1 waits for its second CPU without ever letting it run.
        let all = self.machine.kind.cpus();
        let cpus = if self.machine.kernel == Kernel::V6_1 && !self.realtime {
            format!("1,maxcpus={all}")
        } else {
            all.to_string()
        };
        command.args([
            "-cpu",
            hardware::cpu(self.machine.kind),
            "-smp",
            &cpus,
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
        ]);
        command.args(hardware::arguments(self.machine.kind));
        command.arg("-kernel").arg(&self.vmlinuz).arg("-initrd").arg(&self.initramfs);
        command.args(["-append", &self.kernel_command_line()?]);
        if let Some(plugin) = &self.plugin {
            command.args(["-plugin", plugin]);
        }
        if let Some(Network { address: (address, port), relay }) = &self.network {
            // In an option's value a comma is written twice.
            let relay = relay.replace(',', ",,");
            command.arg("-netdev").arg(format!(
                "user,id=net,restrict=on,net={NETWORK},host={GATEWAY},dhcpstart={ADDRESS},guestfwd=tcp:{address}:{port}-cmd:{relay}"
            ));
            // Without a boot ROM, which is a package of its own.
            command.args(["-device", "virtio-net-pci,netdev=net,romfile="]);
        }
        Ok(command)
    }

    fn kernel_command_line(&self) -> Result<String> {
        let Machine { kernel, kind } = self.machine;
        let mut line = format!(
            "console=ttyS0,115200 panic=-1 {} rdinit=/init thermocline.kernel={kernel} thermocline.name={} thermocline.machine={}",
            [&kind.boot.words(), hardware::kernel_words(kind)].concat().join(" "),
            kind.name,
            kind.told
        );
        if !self.kernel_messages {
            line.push_str(" quiet loglevel=3");
        }
        if let Some(scenario) = &self.scenario {
            line.push_str(" thermocline.scenario=");
            line.push_str(scenario);
        }
        for argument in &self.arguments {
            line.push(' ');
            line.push_str(argument);
        }
        // What is longer the kernel cuts off without a word.
        ensure!(
            line.len() < COMMAND_LINE,
            "the kernel takes no command line of {} bytes: {line}",
            line.len()
        );
        Ok(line)
    }
}

/// Wall time that a scenario may take: even one that never idles stays far below.
pub(crate) fn wall_limit(guest_timeout: Duration) -> Duration {
    Duration::from_mins(2) + guest_timeout * 2
}

/// Where a guest's console is kept.
pub(crate) fn log_path(cache: &Path, name: &str, machine: Machine) -> PathBuf {
    cache.join("logs").join(format!("{name}-{}-{}.log", machine.kernel, machine.kind.name))
}
