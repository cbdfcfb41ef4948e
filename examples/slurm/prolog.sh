#!/bin/bash
# Slurm prolog (slurm.conf: Prolog=...): measure all-reduce over this node's GPUs, ask whether the number is normal, and drain the node if
# it is not. Slurm drains a node whose prolog ends with an error, and requeues the job.
#
# Takes nccl-tests' all_reduce_perf and busbw on the path; half a minute a job. ALL_REDUCE, GPUS and SHARE may be set.
set -u
gpus=${GPUS:-$(nvidia-smi -L 2> /dev/null | wc -l)}
[ "$gpus" -ge 2 ] || exit 0 # nothing to reduce over
log=$(mktemp) || exit 0
trap 'rm -f "$log"' EXIT

if ! timeout 120 "${ALL_REDUCE:-all_reduce_perf}" -b 8M -e 1G -f 8 -g "$gpus" > "$log" 2>&1; then
  echo "busbw prolog: all_reduce_perf failed or did not end: $(tail -n 1 "$log")" >&2
  exit 1
fi
busbw expect "$log" --nodes 1 --threshold "${SHARE:-0.8}" --quiet >&2
case $? in
  1) exit 1 ;;  # low, collapsed, wrong data: drain
  *) exit 0 ;;  # healthy; or cannot say, which is no reason to take a node away
esac
