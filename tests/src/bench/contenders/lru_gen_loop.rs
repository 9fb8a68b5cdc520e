//! What one can write in a dozen lines: have the generations of the pod aged once a minute, evict those that are older than two.

use super::{Contender, script};

const LOOP: &str = r#"
echo 1 > /sys/kernel/mm/numa/demotion_enabled
echo y > /sys/kernel/mm/lru_gen/enabled
G=/sys/kernel/debug/lru_gen
node0() { awk -v pod=$POD '/^memcg/ {m = ($3 == pod)} m && /node/ {n = ($2 == 0)} m && n && NF == 4 {print $1, $2}' $G; }
while :; do
  id=$(awk -v pod=$POD '$1 == "memcg" && $3 == pod {print $2}' $G)
  echo "+ $id 0 $(node0 | tail -n 1 | cut -d' ' -f1) 1 1" > $G
  old=$(node0 | awk '$2 >= 120000 {old = last} {last = $1} END {print old}')
  [ -z "$old" ] || echo "- $id 0 $old 200" > $G
  sleep 60
done
"#;

pub(super) const CONTENDER: Contender = Contender {
    name: "lru-gen-loop",
    settings: "a shell loop: ages once a minute, evicts generations older than 2 minutes",
    start: |guest, _| script::run(guest, LOOP),
};
