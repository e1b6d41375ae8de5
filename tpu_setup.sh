#!/usr/bin/env bash
# Prepares one machine: a Python in the supported window, .venv, the extra for its accelerator, a check
# that JAX sees the device. Run it again at any time: what is already in place is kept.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
usage: bash tpu_setup.sh [--accelerator=auto|tpu|cuda|cpu] [--dry_run] [--help]

Makes .venv beside this script, installs the project with the extra for the machine's accelerator, and
checks that JAX sees it. On a slice of several hosts run it on every one of them, all at once:
  gcloud compute tpus tpu-vm ssh NAME --worker=all --command='cd scaling && bash tpu_setup.sh'

  --accelerator  what to install for; auto (the default) looks for a TPU, then for an NVIDIA GPU
  --dry_run      print what would be done and change nothing
  --help         print this text
TEXT
}

fail() { # fail STATUS TEXT...
  local status=$1
  shift
  printf 'tpu_setup.sh: %s\n' "$@" >&2
  exit "$status"
}

accelerator=auto
dry_run=false
for argument in "$@"; do
  case $argument in
    --accelerator=auto | --accelerator=tpu | --accelerator=cuda | --accelerator=cpu)
      accelerator=${argument#*=} ;;
    --dry_run) dry_run=true ;;
    --help | -h) usage && exit 0 ;;
    *) usage >&2 && fail 2 "unknown option '$argument'" ;;
  esac
done

step() { # step COMMAND...: say it, and do it unless this is a dry run
  printf '+ %s\n' "$*"
  "$dry_run" || "$@"
}

in_window() { # in_window COMMAND: a working Python 3.11 to 3.13? (a pyenv shim may stand there and fail)
  command -v "$1" >/dev/null &&
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11; do
    if in_window "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  fail 1 'no Python 3.11, 3.12 or 3.13 found; on Debian and Ubuntu install one with' \
    '  sudo apt-get install python3.11 python3.11-venv'
}

find_accelerator() {
  # /dev/accel0 is a TPU v2 to v4; the folder /dev/accel holds other makers' devices. Later TPUs are VFIO
  # groups, which a passed-through card of any maker also is: so ask for Google's PCI vendor id as well.
  if [[ -n ${TPU_NAME:-} ]] || compgen -G '/dev/accel[0-9]*' >/dev/null; then
    echo tpu
  elif compgen -G '/dev/vfio/[0-9]*' >/dev/null && grep -qsx 0x1ae0 /sys/bus/pci/devices/*/vendor; then
    echo tpu
  elif command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
    echo cuda
  else
    echo cpu
  fi
}

[[ $accelerator != auto ]] || accelerator=$(find_accelerator)
case $accelerator in
  cpu) target='.' platform=cpu ;;
  cuda) target='.[cuda]' platform=gpu ;;
  tpu) target='.[tpu]' platform=tpu ;;
esac
echo "accelerator: $accelerator"

python=.venv/bin/python
if in_window "$python"; then
  echo "kept: .venv ($("$python" --version))"
elif [[ -e .venv ]]; then
  fail 1 '.venv exists, but holds no working Python 3.11 to 3.13; remove it (rm -r .venv) and run this again'
else
  chosen=$(find_python)
  "$chosen" -c 'import ensurepip, venv' 2>/dev/null ||
    fail 1 "$chosen cannot make virtual environments; on Debian and Ubuntu run" \
      "  sudo apt-get install $("$chosen" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
  step "$chosen" -m venv .venv
fi

# The stamp names what was installed, so that a second run needs neither time nor a network.
stamp=.venv/scaling-setup
wanted="$target $(cksum <pyproject.toml)"
if [[ -e $stamp && $(<"$stamp") == "$wanted" ]]; then
  echo "kept: the installed packages for '$target'"
else
  step "$python" -m pip install --quiet --editable "$target"
  "$dry_run" || printf '%s\n' "$wanted" >"$stamp"
fi

check='
import sys, jax
wanted, devices = sys.argv[1], jax.devices()
print(f"JAX {jax.__version__}: {len(devices)} x {devices[0].device_kind} ({devices[0].platform})")
if wanted not in ("cpu", devices[0].platform):
    sys.exit(
        f"JAX found {devices[0].platform}, {wanted} was required; "
        "mend the driver, or run this with --accelerator=cpu"
    )
'
if "$dry_run"; then
  echo "+ $python: list jax.devices(), platform $platform"
else
  "$python" -c "$check" "$platform"
fi
echo 'next: .venv/bin/scaling quickstart'
