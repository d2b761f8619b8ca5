#!/usr/bin/env bash
# Installs what is missing of the programs named, from Debian's or Ubuntu's packages, and says why each is needed.
set -euo pipefail

why() {
	case $1 in
	runc) echo "the OCI runtime that makes the containers; containerd itself is inside the binary" ;;
	wrk) echo "the HTTP load of the end-to-end tests and benchmarks" ;;
	nginx) echo "the proxy that the warm path's figures are compared with; it is not started as a service" ;;
	runsc) echo "gVisor, in which the end-to-end tests run functions with 'sandbox: gvisor'" ;;
	busybox) echo "the programs of the end-to-end tests' stock images" ;;
	chromium) echo "the browser that tests the dashboard" ;;
	mmdebstrap) echo "the images of the benchmarks' functions in Python and Node" ;;
	qemu-system-x86_64) echo "the emulated machine in which the suites run on cgroup v2" ;;
	*) echo "unknown package $1" >&2 && exit 2 ;;
	esac
}

known() { apt-cache show "$1" >/dev/null 2>&1; }

# Ubuntu has chromium as a snap, behind a package of another name; Debian names the emulator for all its machines.
package() {
	if [ "$1" = busybox ]; then echo busybox-static; return; fi
	if [ "$1" = qemu-system-x86_64 ]; then echo qemu-system-x86; elif [ "$1" = chromium ] && ! known chromium && known chromium-browser; then echo chromium-browser; else echo "$1"; fi
}

missing=()
for p in "$@"; do
	reason=$(why "$p")
	command -v "$p" >/dev/null || { missing+=("$p"); echo "installing $p: $reason"; }
done
[ ${#missing[@]} -eq 0 ] && exit 0

[ "$(id -u)" -eq 0 ] || { echo "missing: ${missing[*]}. Run as root, or: sudo apt-get install ${missing[*]}" >&2; exit 1; }
command -v apt-get >/dev/null || { echo "missing: ${missing[*]}. No apt-get here: install them by this system's own means" >&2; exit 1; }

export DEBIAN_FRONTEND=noninteractive
install() {
	local names=() p
	for p in "${missing[@]}"; do names+=("$(package "$p")"); done
	# A machine that has just been started may be busy with updates of its own.
	apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 "${names[@]}" >/dev/null
}
# A machine that never fetched the package lists, or fetched them long ago, needs them first.
install 2>/dev/null || { apt-get update -qq && install; }
for p in "${missing[@]}"; do
	command -v "$p" >/dev/null || { echo "$p was installed but is not found on PATH" >&2; exit 1; }
done
