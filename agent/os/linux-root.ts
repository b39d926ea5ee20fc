import { kindInside, type Tree } from './tree.ts';

/** what a Linux root may lie on */
export const linuxFilesystems: readonly string[] = ['ext2', 'ext3', 'ext4', 'xfs', 'btrfs', 'f2fs'];

/**
 * Subvolumes of btrfs that hold a root where the default subvolume does not: Ubuntu and Arch, Debian's
 * installer, Fedora. openSUSE sets its default subvolume.
 */
const candidates = ['.', '@', '@rootfs', 'root'];

/** Where in a filesystem a Linux root begins; null where there is none. */
export const findLinuxRoot = async (tree: Tree): Promise<string | null> => {
  for (const root of candidates) {
    for (const sign of ['etc/os-release', 'usr/lib/os-release']) {
      if ((await kindInside(tree, `${root}/${sign}`)) !== 'none') return root;
    }
  }
  return null;
};
