import { readAt } from '../../agent/disk/device-io.ts';
import { parseExfatBootSector } from '../../agent/filesystem/exfat-layout.ts';
import { parseFatBootSector } from '../../agent/filesystem/fat-layout.ts';
import { run } from '../../agent/process/run.ts';

const KIB = 1024;
const BLOCK = 4 * KIB;

/** Where a filesystem keeps what counts: the same bytes at each offset, `length` of them. */
export interface Place {
  offsets: number[];
  length: number;
}

const one = (offset: number, length: number): Place => ({ offsets: [offset], length });

/** Superblocks, and where free is told from used: what a blind mutation rarely meets. */
export const placesOf = async (tool: string, device: string): Promise<Place[]> =>
  (await finders[tool]?.(device)) ?? [];

const finders: Record<string, (device: string) => Promise<Place[]>> = {
  extfs: async (device) => {
    const { stdout } = await run('dumpe2fs', [device]);
    const blockSize = Number(/^Block size:\s+(\d+)/m.exec(stdout)?.[1]);
    const blocks = (name: string): Place[] =>
      [...stdout.matchAll(new RegExp(`${name} at (\\d+)`, 'g'))].map(([, at]) =>
        one(Number(at) * blockSize, 256),
      );
    return [one(KIB, KIB), one(KIB, 128), ...blocks('Block bitmap'), ...blocks('Group descriptors')];
  },
  // both FATs alike: fsck.fat compares them
  fat: async (device) => {
    const { fatOffset, fatBytes } = parseFatBootSector(await readAt(device, 0, 512));
    return [one(0, 90), { offsets: [fatOffset, fatOffset + fatBytes], length: 3000 }];
  },
  exfat: async (device) => {
    const { fatOffset, heapOffset, clusterBytes } = parseExfatBootSector(await readAt(device, 0, 512));
    return [one(0, 120), one(heapOffset, 200), one(fatOffset, 64), one(heapOffset + 3 * clusterBytes, 128)];
  },
  ntfs: async (device) => {
    const boot = await readAt(device, 0, 512);
    const clusterBytes = boot.readUInt8(13) * 512;
    const files = Number(boot.readBigUInt64LE(48)) * clusterBytes;
    const bitmap = (await unnamedData(device, files + 6 * KIB)) * clusterBytes;
    return [one(0, 90), one(bitmap, 768), one(files, 16 * KIB), one(files + 24 * KIB, 64 * KIB)];
  },
  xfs: async (device) => {
    const { stdout } = await run('xfs_db', ['-r', '-c', 'sb 0', '-c', 'print agblocks', device]);
    const group = Number(/\d+/.exec(stdout)?.[0]) * BLOCK;
    const groups = [0, 1, 2, 3].flatMap((number) => [
      one(number * group + 512, 256),
      one(number * group + BLOCK, 256),
      one(number * group + 2 * BLOCK, 256),
    ]);
    return [one(0, 512), one(0, 128), ...groups];
  },
  btrfs: async () => [one(64 * KIB, KIB), one(64 * KIB, 256)],
  // superblocks, checkpoints, segment information
  f2fs: async () => [
    one(KIB, 256),
    { offsets: [KIB, BLOCK + KIB], length: 256 },
    one(512 * BLOCK, 192),
    one(1024 * BLOCK, 192),
    one(1536 * BLOCK, KIB),
    one(513 * BLOCK, BLOCK),
  ],
};

/** First cluster of a file record's data. */
const unnamedData = async (device: string, record: number): Promise<number> => {
  const bytes = await readAt(device, record, KIB);
  for (let at = bytes.readUInt16LE(20); bytes.readUInt32LE(at) !== 0xffffffff; ) {
    if (bytes.readUInt32LE(at) === 0x80) {
      const list = at + bytes.readUInt16LE(at + 32);
      const sizes = bytes.readUInt8(list);
      return bytes.readUIntLE(list + 1 + (sizes & 15), sizes >> 4);
    }
    at += bytes.readUInt32LE(at + 4);
  }
  throw new Error('no data');
};
