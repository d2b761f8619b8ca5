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
mount -t tmpfs run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for m in overlay veth crc16 crc32c_generic mbcache jbd2 ext4; do insmod /modules/$m.ko || echo "test-v2: no module $m"; done
# Layers whose owners are to seem others lie on a file system that can do that; this kernel's tmpfs cannot.
insmod /modules/brd.ko rd_nr=1 rd_size=1048576 && mke2fs /dev/ram0 >/dev/null && mount -t ext4 /dev/ram0 /tmp && chmod 1777 /tmp || { echo "test-v2: no disk"; echo "test-v2: some failed"; poweroff -f; }
ip link set lo up
ulimit -n 65536
only=$(sed -n 's/.*tatami\.run=\([^ ]*\).*/\1/p' /proc/cmdline)
echo "test-v2: Linux $(uname -r), controllers $(cat /sys/fs/cgroup/cgroup.controllers)"

export TATAMI_TEST_PROGRAMS=/tests HOME=/root
failed=0
# suite runs the tests of a program that match the pattern, and says of each as it ends how it went; at least one must match.
suite() {
	name=$1 program=$2 pattern=$3
	begun=$(date +%s)
	cd /tests
	tests=$(./$program -test.list="${pattern%%/*}" | grep -c '^Test')
	verdict=failed
	echo failed >/tmp/verdict
	{ ./$program -test.v -test.run="$pattern" -test.timeout=40m 2>&1 && echo passed >/tmp/verdict; } | tee /tmp/log | grep '^ *--- '
	[ $tests -gt 0 ] && verdict=$(cat /tmp/verdict)
	[ $verdict = passed ] || failed=1
	echo "test-v2: $name: tests $tests, $verdict in $(($(date +%s) - begun)) s"
	[ $verdict = passed ] || grep -v -e 'level=DEBUG' -e '^=== ' /tmp/log | tail -n 300
	rm -f /tmp/log
}

if [ -n "$only" ]; then
	suite "$only" containerd.test "$only"
else
	suite "the attach library" attach.test .
	suite "what hears of listening" listens.test .
	suite "the driver's own tests" containerd.test '^Test(Cgroup|Freeze|NoFreezer|RunEnds|StopFrozen|DeviceRules|SpecHolds|FilterLikeRunc|KeeperKilled|WaitsAlone)'
	suite "conformance, made by the OCI runtime" containerd.test '^TestConformance$'
	suite "conformance, made ahead" containerd.test '^TestConformanceAttach$'
	suite "conformance, root of a user namespace" containerd.test '^TestConformance(Attach)?Mapped$'
	suite "late attach" containerd.test '^TestAttach(Views|ViewsMapped|Refusals|Otherwise|Many)$'
	suite "made by the OCI runtime ahead" containerd.test '^TestPrecreated(Views|ViewsMapped|Once|Killed|GivesWay)$'
	suite "conformance, made by the OCI runtime ahead" containerd.test '^TestConformancePrecreated(Mapped)?$'
	suite "escape, made by the OCI runtime" containerd.test '^TestEscape$'
	suite "escape, made ahead" containerd.test '^TestEscapeAttach$'
	suite "escape, root of a user namespace" containerd.test '^TestEscape(Attach)?Mapped$'
	suite "escape, made by the OCI runtime ahead" containerd.test '^TestEscapePrecreated(Mapped)?$'
fi
if [ $failed = 0 ]; then echo "test-v2: all passed"; else echo "test-v2: some failed"; fi
poweroff -f
