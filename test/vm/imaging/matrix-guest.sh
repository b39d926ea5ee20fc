# Sourced in the shell of a debug boot: makes source disks with every filesystem, and judges what was
# deployed by each filesystem's own checker, by mounting and by sums. Prints facts as lines.

set -u
mkdir -p /mnt/one

# node_of SERIAL
node_of() { lsblk -dno PATH,SERIAL | awk -v s="$1" '$2 == s { print $1 }'; }

# nodes_of DISK: number and node of each partition, by number; logical containers (1 KiB) left out. From sysfs:
# lsblk knows numbers from udev only, which looks away while a disk is claimed.
nodes_of() {
  local folder
  for folder in "/sys/class/block/${1#/dev/}"/*/; do
    [ -f "$folder/partition" ] && [ "$(cat "$folder/size")" -gt 2 ] || continue
    echo "$(cat "$folder/partition") /dev/$(basename "$folder")"
  done | sort -n
}

# make SERIAL < sfdisk's script
make() {
  local disk
  disk=$(node_of "$1")
  touch "/run/fog/claims/${disk#/dev/}"
  blockdev --setrw "$disk"
  sfdisk --quiet --wipe always "$disk" && udevadm settle
}

# fill NODE TYPE: real files of many sizes, some of them deleted again so that free space is not blank
fill() {
  mount -t "$2" "$1" /mnt/one || return
  mkdir -p "/mnt/one/dir, with \"quotes\" é/deep"
  cp -rL /usr/lib/x86_64-linux-gnu/lib[a-g]*.so* /mnt/one/ 2>/dev/null
  head -c 3000001 /dev/urandom >"/mnt/one/dir, with \"quotes\" é/random"
  : >/mnt/one/empty
  head -c 9000000 /dev/urandom >/mnt/one/gone
  sync
  rm /mnt/one/gone /mnt/one/libc*
  umount /mnt/one
}

# content NODE KIND
content() {
  case $2 in
    fat) mkfs.vfat -n 'A B' "$1" && fill "$1" vfat ;;
    ntfs) mkntfs -q -f -L 'Système, "C"' "$1" && fill "$1" ntfs3 ;;
    exfat) mkfs.exfat -L 'Ubung 1, 2' "$1" && fill "$1" exfat ;;
    ext2 | ext3 | ext4) mkfs."$2" -q -L 'root, 1' "$1" && fill "$1" "$2" ;;
    xfs) mkfs.xfs -q -f "$1" && fill "$1" xfs ;;
    btrfs) mkfs.btrfs -q -f "$1" && fill "$1" btrfs ;;
    f2fs) mkfs.f2fs -q -f "$1" && fill "$1" f2fs ;;
    swap) mkswap -L schwäp "$1" ;;
  esac >/tmp/content.log 2>&1 || { echo "BROKEN $1 $2"; tail -5 /tmp/content.log; }
}

# contents SERIAL KIND...: one for each partition, in order
contents() {
  local disk number node
  disk=$(node_of "$1")
  shift
  while read -r number node; do
    content "$node" "$1"
    shift
  done < <(nodes_of "$disk")
  for node in $(nodes_of "$disk" | cut -d' ' -f2) "$disk"; do
    blockdev --flushbufs "$node"
    blockdev --setro "$node"
  done
  rm -f "/run/fog/claims/${disk#/dev/}"
}

# use SERIAL NUMBER TYPE: somebody works with the partition: a file more, one less
use() {
  local disk node
  disk=$(node_of "$1")
  node=$(nodes_of "$disk" | awk -v n="$2" '$1 == n { print $2 }')
  blockdev --setrw "$disk" "$node"
  mount -t "$3" "$node" /mnt/one
  head -c 100000 /dev/urandom >/mnt/one/mine
  rm /mnt/one/empty
  umount /mnt/one
  blockdev --flushbufs "$node"
  blockdev --setro "$node" "$disk"
}

# check NODE TYPE: the filesystem's own, read-only
check() {
  case $2 in
    vfat) fsck.fat -n "$1" ;;
    ntfs) ntfsresize --info --force --no-progress-bar "$1" && ntfs-3g.probe --readwrite "$1" ;;
    exfat) fsck.exfat -n "$1" ;;
    ext*) e2fsck -f -n "$1" ;;
    xfs) xfs_repair -n "$1" ;;
    btrfs) btrfs check --readonly "$1" ;;
    f2fs) fsck.f2fs --dry-run "$1" ;;
    swap) swaplabel "$1" ;;
  esac >/tmp/check.log 2>&1 && echo clean || { echo "exit $?: $(tail -2 /tmp/check.log | tr '\n' ' ')"; }
}

# facts SERIAL: a line for each partition: number|type|label|bytes|bytes of its filesystem|check|files|sum
facts() {
  local disk number node type
  disk=$(node_of "$1")
  blockdev --flushbufs "$disk"
  while read -r number node; do
    type=$(blkid -p -s TYPE -o value "$node")
    local files='' sum='' size=''
    if [ "$type" != swap ]; then
      local as=$type how=ro
      case $type in
        ntfs) as=ntfs3 ;;
        xfs) how=ro,norecovery,nouuid ;;
        ext*) as=ext4 how=ro,noload ;;
      esac
      mount -t "$as" -o "$how" "$node" /mnt/one || continue
      files=$(cd /mnt/one && find . -type f ! -path './lost+found/*' | wc -l)
      sum=$(cd /mnt/one && find . -type f ! -path './lost+found/*' | LC_ALL=C sort | tr '\n' '\0' | xargs -0 sha256sum | sha256sum | cut -c1-64)
      size=$(stat -f -c '%b * %S' /mnt/one)
      size=$((size))
      umount /mnt/one
    fi
    echo "FACT $number|$type|$(blkid -p -s LABEL -o value "$node")|$(blockdev --getsize64 "$node")|$size|$(check "$node" "$type")|$files|$sum"
  done < <(nodes_of "$disk")
}
