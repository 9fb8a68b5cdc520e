//! `memory.reclaim` every six seconds by the formula of TMO (Weiner et al., ASPLOS 2022, 3.3): `current x ratio x max(0, 1 - stalled / threshold)`
//! with ratio 0.0005 and threshold 0.1 %. Where the kernel demotes, what is reclaimed of anonymous memory goes down.

use super::{Contender, script};

const LOOP: &str = r#"
echo 1 > /sys/kernel/mm/numa/demotion_enabled
cd /sys/fs/cgroup$POD
stalled() { sed -n 's/^some.*total=//p' memory.pressure; }
before=$(stalled)
while sleep 6; do
  now=$(stalled)
  bytes=$(awk -v current=$(cat memory.current) -v us=$((now - before)) -v ratio=$RATIO \
    'BEGIN { share = 1 - us / 6e6 / 0.001; if (share < 0) share = 0; printf "%d", current * ratio * share }')
  before=$now
  [ $bytes -lt 4096 ] || echo $bytes > memory.reclaim 2>/dev/null
done
"#;

pub(super) const DEFAULT: Contender = Contender {
    name: "tmo",
    settings: "ratio 0.0005 every 6 s, threshold 0.1 %, as published",
    start: |guest, _| script::run(guest, &format!("RATIO=0.0005{LOOP}")),
};

pub(super) const TUNED: Contender = Contender {
    name: "tmo-tuned",
    settings: "ratio 0.01 every 6 s, threshold 0.1 %: as fast as senpai probes",
    start: |guest, _| script::run(guest, &format!("RATIO=0.01{LOOP}")),
};
