#!/usr/bin/env bash
# Runs every check of this repository on a Debian machine that has Rust and a C compiler.
set -euo pipefail

# Absolute, so that --help works after the cd.
script=$(realpath "${BASH_SOURCE[0]}")
cd "$(dirname "$script")/.."

all_parts=(packages python boot fmt clippy test doc release readme)
usage() {
  cat <<'HELP'
usage: tests/run.sh [PART...]

Runs the parts named, or all of them in this order:
  packages  install the Debian packages that the tests need, if any is missing
            (as root or by sudo; nothing is ever removed), and clippy by rustup
  python    make target/test-venv with the OpenStack services, the OpenStack and iLO clients,
            and schemathesis, that the tests use
  boot      unpack the kernel and the boot loaders that the tests boot into
            target/test-boot; none of them is installed
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
export FLOWRUN_TEST_BOOT="$PWD/target/test-boot"
logs=target/test-logs

# What the tests call, and the package that brings it.
tools=(
  mcopy:mtools fsck.vfat:dosfstools mkfs.vfat:dosfstools mkfs.xfs:xfsprogs
  xorriso:xorriso isoinfo:genisoimage genisoimage:genisoimage
  mke2fs:e2fsprogs e2fsck:e2fsprogs debugfs:e2fsprogs
  qemu-img:qemu-utils qemu-io:qemu-utils qemu-system-x86_64:qemu-system-x86
  memcached:memcached tgtd:tgt tgtadm:tgt iscsi-ls:libiscsi-bin iscsi-inq:libiscsi-bin
  sfdisk:fdisk sgdisk:gdisk blkid:util-linux mkswap:util-linux losetup:util-linux
  curl:curl nc:netcat-openbsd rclone:rclone openssl:openssl objdump:binutils file:file
  gzip:gzip xz:xz-utils zstd:zstd python3:python3 pkg-config:pkg-config
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
  # The feature legacy-tls is built against it.
  pkg-config --exists openssl || echo libssl-dev
  [[ -e /usr/share/OVMF/OVMF_CODE_4M.fd ]] || echo ovmf
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

# All of qemu must be of one version: beside a qemu-utils from backports apt refuses
# qemu-system-x86, or without --no-remove would remove qemu-utils.
install_packages() {
  apt_get update
  if [[ " $* " == *" qemu-system-x86 "* ]]; then
    set -- "$@" "qemu-utils=$(apt-cache policy qemu-system-x86 | awk '/Candidate:/ { print $2 }')"
  fi
  apt_get install --yes --no-remove --no-install-recommends --allow-downgrades "$@"
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

python_imports='import hpilo, schemathesis, sushy_tools, swift, swiftclient, keystone, glance'

# Exact versions, dependencies included: a new release must not change a test's result.
part_python() {
  local venv=target/test-venv stamp=target/test-venv/installed
  local wanted=tests/services/requirements.txt
  if [[ -e $stamp ]] && cmp -s "$stamp" "$wanted" &&
    "$FLOWRUN_TEST_PYTHON" -c "$python_imports"; then
    return
  fi
  python3 -m venv --clear "$venv"
  "$FLOWRUN_TEST_PYTHON" -m pip install --quiet --no-input --disable-pip-version-check \
    --retries 5 "uv==$uv_version"
  "$venv/bin/uv" pip install --quiet --no-deps --compile-bytecode \
    --python "$FLOWRUN_TEST_PYTHON" -r "$wanted"
  "$FLOWRUN_TEST_PYTHON" -m pip check
  "$FLOWRUN_TEST_PYTHON" -c "$python_imports"
  cp "$wanted" "$stamp"
}

# Debian packages that the boot tests read files from, and the files. An installed kernel would
# change the machine; unpacked ones do not.
boot_packages=(
  isolinux syslinux syslinux-common grub-efi-amd64-bin grub-efi-amd64-signed shim-signed busybox-static
)
boot_files=(
  ./bin/busybox ./boot/vmlinuz-* ./usr/lib/ISOLINUX/isolinux.bin
  ./usr/lib/syslinux/modules/bios/ldlinux.c32 ./usr/lib/syslinux/mbr/mbr.bin ./usr/bin/syslinux
  ./usr/lib/shim/shimx64.efi.signed
  ./usr/lib/grub/x86_64-efi/monolithic/gcdx64.efi
  ./usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed
  # What it takes to read a USB floppy.
  '*/'{usb-common,usbcore,xhci-hcd,xhci-pci,usb-storage}.ko
  '*/'{scsi_common,scsi_mod,sd_mod,t10-pi,crct10dif_common,crct10dif_generic}.ko
  '*/'{crc-t10dif,crc64,crc64-rocksoft}.ko '*/'{fat,vfat,nls_cp437,nls_ascii,efivarfs}.ko
  # Disk, network and root of a virtual machine; the kernel's iSCSI target.
  '*/'{libata,libahci,ahci,virtio,virtio_ring,virtio_pci,virtio_net,failover,net_failover}.ko
  '*/'{virtio_pci_modern_dev,virtio_pci_legacy_dev,jbd2,mbcache,crc16,crc32c_generic,ext4,cdrom,isofs}.ko
  '*/'{configfs,target_core_mod,target_core_iblock,iscsi_target_mod}.ko
  # What a server has and that machine has not; tg3 names firmware files.
  '*/'{tg3,nvme,nvme-core,i6300esb,watchdog,bonding,tls,8021q,garp,mrp,stp,llc}.ko
)

part_boot() {
  local folder=$FLOWRUN_TEST_BOOT new=$FLOWRUN_TEST_BOOT.new kernel deb file
  kernel=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
  local wanted="$kernel ${boot_packages[*]} ${boot_files[*]}"
  if [[ -e $folder/unpacked && $(<"$folder/unpacked") == "$wanted" ]]; then return; fi
  rm -rf "$new" && mkdir -p "$new"
  download() { (cd "$new" && apt-get -qq download "$kernel" "${boot_packages[@]}"); }
  # A list of packages that is older than the archive names files that are gone.
  download || { apt_get update && download; }
  for deb in "$new"/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" |
      tar --extract --directory "$new" --wildcards --transform 's,.*/,,' \
        --transform 's,^vmlinuz-.*,vmlinuz,' "${boot_files[@]}" 2>/dev/null || true
  done
  rm "$new"/*.deb
  for file in busybox vmlinuz isolinux.bin gcdx64.efi gcdx64.efi.signed shimx64.efi.signed vfat.ko; do
    [[ -e $new/$file ]] || { echo "no $file in $wanted"; return 1; }
  done
  echo "$wanted" >"$new/unpacked"
  rm -rf "$folder" && mv "$new" "$folder"
}

# A part that ends with this status was not run, and said why.
not_run=77

part_fmt() {
  has rustfmt || { echo "no rustfmt; rustup component add rustfmt"; return "$not_run"; }
  cargo fmt --check
}

part_clippy() { cargo clippy --all-targets --all-features --locked -- -D warnings; }

# The tests wait more than they compute.
part_test() {
  RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))} \
    cargo test --all-features --locked --no-fail-fast
}

part_doc() { RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --all-features --locked; }

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
