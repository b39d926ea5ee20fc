import { Buffer } from 'node:buffer';
import { type Site, siteSchema } from '../../agent/protocol/index.ts';

export interface ArchiveEntry {
  path: string;
  /** type and permission bits, as in stat(2) */
  mode: number;
  content?: Uint8Array;
}

const DIRECTORY = 0o040000;
const FILE = 0o100000;

/**
 * The per-boot archive that the kernel unpacks over the initramfs: `fog/site.json`, readable by root
 * only. The only place where the agent's token stands.
 */
export const siteCpio = (site: Site): Buffer =>
  newcArchive([
    { path: 'fog', mode: DIRECTORY | 0o700 },
    {
      path: 'fog/site.json',
      mode: FILE | 0o600,
      content: Buffer.from(JSON.stringify(siteSchema.parse(site))),
    },
  ]);

/**
 * An archive in cpio's "newc" format (Linux Documentation/driver-api/early-userspace/buffer-format.rst):
 * a header of 13 eight-digit hex numbers, the name, the content, each padded to four bytes.
 */
export const newcArchive = (entries: readonly ArchiveEntry[]): Buffer =>
  Buffer.concat(
    [...entries, { path: 'TRAILER!!!', mode: 0 }].flatMap((entry, index) => member(entry, index + 1)),
  );

const member = ({ path, mode, content = new Uint8Array() }: ArchiveEntry, inode: number): Uint8Array[] => {
  const name = Buffer.from(`${path}\0`);
  const links = (mode & 0o170000) === DIRECTORY ? 2 : 1;
  const [uid, gid, modified, device, checksum] = [0, 0, 0, 0, 0];
  const fields = [
    ...[inode, mode, uid, gid, links, modified, content.length],
    ...[device, device, device, device, name.length, checksum],
  ];
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`;
  return [padded(Buffer.concat([Buffer.from(header), name])), padded(content)];
};

const padded = (bytes: Uint8Array): Uint8Array => {
  const result = Buffer.alloc(Math.ceil(bytes.length / 4) * 4);
  result.set(bytes);
  return result;
};
