//! `cargo xtask demo`: two cgroups in a guest with two memory tiers, shown live, judged at the end.

mod screen;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use thermocline_tests::report::Frame;
use thermocline_tests::scenario::{Kernel, Scenario};

use crate::machines::MachineArgs;
use crate::vm::{Guests, Outcome};
use crate::{out, say};
use screen::Screen;

/// The agent's configuration in the guest.
const CONFIG: &str = include_str!("../../deploy/examples/demo.yaml");

/// What to show.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    machine: MachineArgs,
    /// Another age from which memory counts as cold, e.g. 20s. The demo does not wait longer for it: with 10m it fails
    #[arg(long, value_name = "TIME", value_parser = time)]
    after: Option<String>,
    /// Seconds of the guest in a second on the terminal; a slow machine may not keep up
    #[arg(long, default_value_t = 2.0, value_parser = speed)]
    speed: f64,
    /// A picture every ten seconds as plain text, as when the output is no terminal
    #[arg(long)]
    plain: bool,
    /// The last picture in colour, as an SVG file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<bool> {
    let machine = args.machine.or(Kernel::V7_2);
    let scenario = Scenario::find("demo").context("the guest has no demo")?;
    ensure!(
        scenario.runs_on(machine),
        "there is no demo on {machine}: this kernel sees no lower tier there; try --machine kmem or a newer kernel"
    );
    say!("the demo runs in a virtual machine: two memory tiers, two cgroups, the agent");
    say!(
        "what is missing is installed, downloaded or built first, once: about 3 minutes on two cores and 1 GB of disk"
    );
    let guests = Guests::prepare_demo(machine.kernel)?;

    let mut screen = Screen::new(args.speed, args.plain, args.svg.clone());
    out!("\nThe agent's configuration, deploy/examples/demo.yaml:\n");
    for line in CONFIG.lines() {
        out!("    {line}");
    }
    if let Some(after) = &args.after {
        out!("\n    and by --after: demote.after is {after}");
    }
    out!("");
    say!("booting Linux {} with a slow node ({}) in QEMU, a few seconds", machine.kernel, machine.kind.name);

    let mut guest = guests.guest(machine, Some(scenario), false, false)?;
    guest.arguments = screen.kernel_arguments();
    guest.arguments.extend(args.after.iter().map(|after| format!("thermocline.after={after}")));
    let start = Instant::now();
    let ended = guests.run(scenario, &guest, |line| {
        if let Some(frame) = Frame::parse(line) {
            screen.show(frame);
        }
    });
    screen.close().with_context(|| "the picture can't be written".to_owned())?;
    let outcome = ended?;
    let began = xtask_front::since_start(SystemTime::now());
    summary(&outcome, start.elapsed().as_secs_f64());
    if let Some(first) = screen.first() {
        out!("  {}", first_picture(began.saturating_sub(first.elapsed())));
    }
    Ok(outcome.pass())
}

/// How long a person waited, with what was built and downloaded for it.
fn first_picture(after: Duration) -> String {
    format!(
        "The first picture came {:.0} s after the command. From a fresh clone on two quiet cores it should take 240 s at most.",
        after.as_secs_f64()
    )
}

/// The numbers beside their bars, and what they come to.
fn summary(outcome: &Outcome, seconds: f64) {
    let colour = std::io::stdout().is_terminal();
    let ink =
        |code: &str, text: &str| if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
    let mut widths = [0; 3];
    for check in &outcome.checks {
        for (width, text) in widths.iter_mut().zip([&check.name, &check.value, &check.bar]) {
            *width = text.chars().count().max(*width);
        }
    }
    let [name, value, bar] = widths;
    for check in &outcome.checks {
        let word = if check.pass { ink("32", "ok") } else { ink("1;31", "FAILED") };
        out!(
            "  {:name$}   {:>value$}   {}   {word}",
            check.name,
            check.value,
            ink("2", &format!("{:bar$}", check.bar))
        );
    }
    let failed = outcome.checks.iter().filter(|check| !check.pass).count();
    out!("");
    if outcome.pass() {
        out!("  {} ({} numbers, {seconds:.0} s)", ink("1;32", "Everything held."), outcome.checks.len());
    } else {
        let words = if failed > 0 {
            format!("{failed} of {} numbers did not hold.", outcome.checks.len())
        } else {
            "The demo did not come to its end.".to_owned()
        };
        out!("  {}\n\n{}", ink("1;31", &words), outcome.summary());
    }
}

/// What the guest's agent will read as a duration, refused here already.
fn time(text: &str) -> Result<String, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    if digits.parse::<u32>().is_ok_and(|count| count > 0) && matches!(unit, "s" | "m" | "h") {
        Ok(text.to_owned())
    } else {
        Err("write a number with s, m or h, for example 20s".to_owned())
    }
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().map_err(|error| format!("{error}"))?;
    if (0.5..=100.0).contains(&speed) { Ok(speed) } else { Err("write a number from 0.5 to 100".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::{CONFIG, first_picture, speed, time};
    use std::time::Duration;

    #[test]
    fn the_time_to_the_first_picture_is_told_beside_its_bar() {
        assert!(first_picture(Duration::from_secs(212)).contains("212 s after the command"));
    }

    #[test]
    fn times_and_speeds_that_the_guest_would_stumble_over_are_refused() {
        assert_eq!([time("20s"), time("10m")], [Ok("20s".to_owned()), Ok("10m".to_owned())]);
        for bad in ["", "10", "0s", "s", "10 s", "1m;reboot", "10m panic=1"] {
            assert!(time(bad).is_err(), "{bad}");
        }
        assert!(speed("1.5").is_ok() && speed("0").is_err() && speed("NaN").is_err());
    }

    #[test]
    fn the_configuration_fits_beside_the_picture() {
        assert!(CONFIG.lines().count() <= 12 && CONFIG.lines().all(|line| line.chars().count() <= 75));
    }
}
