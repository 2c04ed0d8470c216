#!/usr/bin/env bash
# Runs every check of this repository on a Debian machine that has Rust and a C compiler.
set -euo pipefail

# Absolute, so that --help works after the cd.
script=$(realpath "${BASH_SOURCE[0]}")
cd "$(dirname "$script")/.."

all_parts=(packages python fmt clippy test doc release readme)
usage() {
  cat <<'HELP'
usage: tests/run.sh [PART...]

Runs the parts named, or all of them in this order:
  packages  install the Debian packages that the tests need, if any is missing
            (as root or by sudo; nothing is ever removed), and clippy by rustup
  python    make target/test-venv with the OpenStack services and clients that the
            tests use
  fmt       cargo fmt --check, if rustfmt is installed
  clippy    cargo clippy, warnings are errors
  test      cargo test, all of them
  doc       cargo doc, warnings are errors
  release   cargo build --release
  readme    run the README's first command with the release binary

Every part runs even if one before it failed. The output of a part is kept in
target/test-logs/PART.log and shown if the part fails. Exit status: 0 if all
passed, 1 if any failed, 2 for wrong usage.
HELP
}

# Administration tools that tests call; outside root's PATH on Debian.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export CARGO_TERM_COLOR=never
if [[ -t 1 ]]; then CARGO_TERM_COLOR=always; fi
export FLOWRUN_TEST_PYTHON="$PWD/target/test-venv/bin/python"
logs=target/test-logs

# What the tests call, and the package that brings it.
tools=(
  mcopy:mtools fsck.vfat:dosfstools mkfs.vfat:dosfstools
  xorriso:xorriso isoinfo:genisoimage genisoimage:genisoimage
  mke2fs:e2fsprogs e2fsck:e2fsprogs debugfs:e2fsprogs
  qemu-img:qemu-utils qemu-io:qemu-utils
  memcached:memcached tgtd:tgt tgtadm:tgt iscsi-ls:libiscsi-bin iscsi-inq:libiscsi-bin
  sfdisk:fdisk sgdisk:gdisk blkid:util-linux mkswap:util-linux losetup:util-linux
  curl:curl openssl:openssl objdump:binutils file:file
  gzip:gzip xz:xz-utils zstd:zstd python3:python3
)

# Installs the OpenStack services in seconds where pip takes a minute.
uv_version=0.13.9

has() { command -v "$1" >/dev/null; }

missing_packages() {
  local tool
  for tool in "${tools[@]}"; do
    has "${tool%%:*}" || echo "${tool#*:}"
  done
  # Debian splits venv from python3; a python3 from elsewhere usually has it.
  if ! has python3 || ! python3 -c 'import ensurepip, venv'; then echo python3-venv; fi
  [[ -e /etc/ssl/certs/ca-certificates.crt ]] || echo ca-certificates
}

as_root() {
  if [[ $EUID -eq 0 ]]; then
    "$@"
  elif has sudo; then
    sudo "$@"
  else
    echo "neither root nor sudo: cannot run $*" >&2
    return 1
  fi
}

apt_get() {
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"
}

# --no-remove: with a qemu-utils from backports, apt would rather remove it than fail.
install_packages() {
  apt_get update && apt_get install --yes --no-remove --no-install-recommends "$@"
}

part_packages() {
  local tool missing
  for tool in cargo cc; do
    has "$tool" || { echo "$tool is missing; install Rust (rustup.rs) and a C compiler"; return 1; }
  done
  if ! cargo clippy --version && has rustup; then rustup component add clippy rustfmt; fi
  mapfile -t missing < <(missing_packages 2>/dev/null | sort -u)
  if [[ ${#missing[@]} -gt 0 ]]; then
    has apt-get || { echo "no apt-get here; please install: ${missing[*]}"; return 1; }
    echo "installing: ${missing[*]}"
    install_packages "${missing[@]}" || { sleep 5; install_packages "${missing[@]}"; }
    mapfile -t missing < <(missing_packages | sort -u)
  fi
  if [[ ${#missing[@]} -gt 0 ]]; then
    echo "still missing after the installation: ${missing[*]}"
    return 1
  fi
}

# Exact versions, dependencies included: a new release must not change a test's result.
part_python() {
  local venv=target/test-venv stamp=target/test-venv/installed
  local wanted=tests/services/requirements.txt
  if [[ -e $stamp ]] && cmp -s "$stamp" "$wanted" &&
    "$FLOWRUN_TEST_PYTHON" -c 'import swift, swiftclient, keystone, glance'; then
    return
  fi
  python3 -m venv --clear "$venv"
  "$FLOWRUN_TEST_PYTHON" -m pip install --quiet --no-input --disable-pip-version-check \
    --retries 5 "uv==$uv_version"
  "$venv/bin/uv" pip install --quiet --no-deps --compile-bytecode \
    --python "$FLOWRUN_TEST_PYTHON" -r "$wanted"
  "$FLOWRUN_TEST_PYTHON" -m pip check
  "$FLOWRUN_TEST_PYTHON" -c 'import swift, swiftclient, keystone, glance'
  cp "$wanted" "$stamp"
}

# A part that ends with this status was not run, and said why.
not_run=77

part_fmt() {
  has rustfmt || { echo "no rustfmt; rustup component add rustfmt"; return "$not_run"; }
  cargo fmt --check
}

part_clippy() { cargo clippy --all-targets --locked -- -D warnings; }

part_test() { cargo test --locked --no-fail-fast; }

part_doc() { RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --locked; }

part_release() { cargo build --release --locked; }

part_readme() {
  local line command
  line=$(grep -m1 'cargo run --release -- ' README.md) || {
    echo "README.md has no line with 'cargo run --release -- '"
    return 1
  }
  read -ra command <<<"${line#*cargo run --release -- }"
  timeout --foreground 600 "${CARGO_TARGET_DIR:-target}/release/flowrun" "${command[@]}"
}

passed=0
failed=0
skipped=0
table=""

run_part() {
  local part=$1 status start seconds verdict
  log=$logs/$part.log
  printf '%-9s ' "$part"
  start=$SECONDS
  # Not in a condition: there bash would ignore the part's own `set -e`.
  set +e
  (set -e; "part_$part") >"$log" 2>&1 </dev/null
  status=$?
  set -e
  seconds=$((SECONDS - start))
  case $status in
    0) verdict=ok passed=$((passed + 1)) ;;
    "$not_run") verdict="not run: $(<"$log")" skipped=$((skipped + 1)) ;;
    *) verdict=FAILED failed=$((failed + 1)) ;;
  esac
  printf '%5d s  %s\n' "$seconds" "$verdict"
  if [[ $verdict == FAILED ]]; then
    printf '%s\n' "--- $part ended with status $status:"
    cat "$log"
    printf '%s\n' "--- end of $part"
  fi
  table+=$(printf '%-9s %5d s  %s%s' "$part" "$seconds" "$verdict" "$(test_count "$part")")$'\n'
}

# How many tests cargo ran, from the result lines of its test binaries.
test_count() {
  [[ $1 == test ]] || return 0
  awk '/^test result:/ { passed += $4; failed += $6 }
    END { printf "  (%d tests passed, %d failed)", passed, failed }' "$log"
}

stopped() {
  printf '\nstopped; the end of %s:\n' "$log"
  tail -n 40 "$log"
  exit 130
}

parts=("$@")
case ${1:-} in
  -h | --help) usage; exit 0 ;;
  '') parts=("${all_parts[@]}") ;;
esac
for part in "${parts[@]}"; do
  if [[ " ${all_parts[*]} " != *" $part "* ]]; then
    echo "no part named '$part'; see tests/run.sh --help" >&2
    exit 2
  fi
done

mkdir -p "$logs"
log=/dev/null
trap stopped INT TERM
for part in "${parts[@]}"; do run_part "$part"; done

printf '\n%-9s %7s  %s\n%s' part time result "$table"
if [[ $skipped -gt 0 ]]; then printf '%d not run, ' "$skipped"; fi
printf '%d passed, %d failed\n' "$passed" "$failed"
[[ $failed -eq 0 ]]
