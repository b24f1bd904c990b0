#!/usr/bin/env bash
# PID 1 of a node: see namespaces.py. bash, since it reaps what loses its parent; `read` ends with the farm's maker, as a
# second net. Devices are bound and not made: no CAP_MKNOD, and a tmpfs may be mounted nodev.
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 node /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work node /mnt/root
cd /mnt/root
hostname "$NODE"
for place in tmp var/tmp run dev $HIDDEN; do
    [ -d "$place" ] || continue
    mode=755
    case $place in tmp | var/tmp) mode=1777 ;; esac
    mount -t tmpfs -o "mode=$mode" tmpfs "$place"
done
mkdir -p run/lock dev/shm dev/pts mnt
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mount -t tmpfs -o mode=1777 shm dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for n in 0 1 2; do ln -s "/proc/self/fd/$n" "dev/$(set -- stdin stdout stderr; shift "$n"; echo "$1")"; done
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
while IFS="	" read -r from to how; do
    [ -n "$from" ] || continue
    if [ -d "$from" ]; then
        mkdir -p "./$to"
    else
        mkdir -p "./${to%/*}"
        [ -e "./$to" ] || touch "./$to"
    fi
    mount --bind "$from" "./$to"
    [ "$how" = rw ] || mount -o remount,bind,ro "./$to"
done <<<"$BINDS"
rm -f etc/hostname etc/resolv.conf
echo "$NODE" >etc/hostname
: >etc/resolv.conf
mkdir .old
pivot_root . .old
cd /
umount -l /.old
rmdir /.old
unset NODE HIDDEN BINDS
trap 'exit 0' TERM
echo ready
exec >/dev/null
while read -r _; do :; done
