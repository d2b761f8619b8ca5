#!/bin/busybox sh
# The emulated machine's first process: it makes the system, runs the suites and tells how they went.
B=/bin/busybox
export PATH=/bin:/sbin:/usr/bin:/usr/sbin

if [ "$1" != there ]; then
	# A container's root cannot be changed as long as the first root is the kernel's own: everything moves into another one.
	$B mkdir /next
	$B mount -t tmpfs -o size=70% next /next
	for d in bin modules tests usr etc lib lib64 init; do [ -e /$d ] && $B cp -a /$d /next/; done
	$B mkdir -p /next/proc /next/sys /next/dev /next/tmp /next/run /next/root
	exec $B switch_root /next /init there
fi

$B --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for m in overlay veth; do insmod /modules/$m.ko || echo "test-v2: no module $m"; done
ip link set lo up
ulimit -n 65536
only=$(sed -n 's/.*tatami\.run=\([^ ]*\).*/\1/p' /proc/cmdline)
echo "test-v2: Linux $(uname -r), controllers $(cat /sys/fs/cgroup/cgroup.controllers)"

export TATAMI_TEST_PROGRAMS=/tests HOME=/root
failed=0
suite() {
	name=$1
	shift
	begun=$(date +%s)
	cd /tests
	if "$@" -test.timeout=20m >/tmp/log 2>&1; then verdict=passed; else verdict=failed failed=1; fi
	case $(tail -n 5 /tmp/log) in *"no tests to run"*) [ -n "$only" ] || { verdict=failed failed=1; } ;; esac
	echo "test-v2: $name $verdict in $(($(date +%s) - begun)) s"
	[ $verdict = passed ] || grep -v 'level=DEBUG' /tmp/log | tail -n 120
	rm -f /tmp/log
}

if [ -n "$only" ]; then
	suite "$only" ./containerd.test -test.run="$only"
else
	suite "the attach library" ./attach.test
	suite "the driver's own tests" ./containerd.test -test.run='^Test(Cgroup|Own|Parent)'
	suite "conformance, made by the OCI runtime" ./containerd.test -test.run='^TestConformance$'
	suite "conformance, made ahead" ./containerd.test -test.run='^TestConformanceAttach$'
	suite "late attach" ./containerd.test -test.run='^TestAttach(Views|Refusals|Otherwise|Many)$'
	suite "escape, made by the OCI runtime" ./containerd.test -test.run='^TestEscape$'
	suite "escape, made ahead" ./containerd.test -test.run='^TestEscapeAttach$'
fi
if [ $failed = 0 ]; then echo "test-v2: all passed"; else echo "test-v2: some failed"; fi
poweroff -f
