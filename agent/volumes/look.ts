import { availableMemory, type Snapshot, snapshotInMemory } from '../disk/snapshot.ts';
import { toImagingError } from '../errors.ts';
import type { ImagePartition } from '../protocol/index.ts';
import { clearSides } from './bitlocker/clear-sides.ts';
import { type Inspected, type InspectOptions, inspectVolumes } from './inspect.ts';
import type { Volume } from './volume.ts';

export type Seen = Inspected & {
  /** the device from whose first byte on its extents are to be read */
  source: string;
  decryptedFrom: ImagePartition['decryptedFrom'];
};

export type LookOptions = Omit<InspectOptions, 'replay'> & {
  /** snapshots and clear sides stay until this is disposed: after the last read */
  held: AsyncDisposableStack;
  /** most memory that changes may take, bytes; default: a quarter of what is free */
  memory?: number;
};

const MIB = 1024 * 1024;
/** of the memory that is free: the engine's buffers and the tools need theirs */
const SHARE = 0.25;

const DECRYPTED =
  'the image holds the clear content of its BitLocker volume; what is deployed from it is not encrypted: turn BitLocker on there again';

/**
 * What volumes hold and what of it is used. A BitLocker volume that can be opened is looked at, and read, as its
 * clear side. Where a journal waits to be replayed, that happens on a snapshot in memory, and the snapshot is what
 * must be read: the volume itself is never written to. Where that does not work out, the volume is kept whole, as it
 * lies on the disk.
 *
 * @throws ImagingError as inspectVolumes
 */
export const lookAtVolumes = async (volumes: readonly Volume[], options: LookOptions): Promise<Seen[]> => {
  const { held, memory, ...rest } = options;
  const sides = await clearSides(volumes, { ...rest, held });
  const looks = await inspectVolumes(sides, { ...rest, replay: false });
  const seen = looks.map((look, at): Seen => {
    const source = sides[at]?.device ?? '';
    if (source === volumes[at]?.device) return { ...look, source, decryptedFrom: null };
    const warnings = [...look.warnings, `${sides[at]?.name}: ${DECRYPTED}`];
    return { ...look, source, decryptedFrom: 'bitlocker', warnings };
  });
  const dirty = sides.filter((_, at) => looks[at]?.dirty);
  if (dirty.length === 0) return seen;
  const again = await replayed(dirty, rest, held, memory);
  return seen.map((look, at) => {
    if (!look.dirty) return look;
    if (typeof again !== 'string') return { ...look, ...again.get(look.source) };
    const why = `its journal could not be replayed in memory: ${again}`;
    const reason = look.method === 'raw' ? `${look.reason}; ${why}`.slice(0, 400) : look.reason;
    return { ...look, reason, warnings: [...look.warnings, `${volumes[at]?.name}: ${why}`] };
  });
};

/** Looks by device, all of them on snapshots; a text says why there are none. */
const replayed = async (
  volumes: readonly Volume[],
  options: Omit<InspectOptions, 'replay'>,
  held: AsyncDisposableStack,
  memory: number | undefined,
): Promise<Map<string, Inspected & { source: string }> | string> => {
  const { signal } = options;
  await using making = new AsyncDisposableStack();
  const total = memory ?? (await availableMemory()) * SHARE;
  const limit = Math.floor(total / volumes.length / MIB) * MIB;
  try {
    const snapshots: Snapshot[] = [];
    for (const { device } of volumes) {
      snapshots.push(making.use(await snapshotInMemory(device, { limit, signal })));
    }
    const copies = volumes.map((volume, at) => ({ ...volume, device: snapshots[at]?.path ?? '' }));
    const looks = await inspectVolumes(copies, { ...options, replay: true });
    for (const snapshot of snapshots) await snapshot.assertWhole();
    held.use(making.move());
    return new Map(
      looks.map((look, at) => [volumes[at]?.device ?? '', { ...look, source: copies[at]?.device ?? '' }]),
    );
  } catch (thrown) {
    const error = toImagingError(thrown);
    if (signal.aborted || error.code === 'INTERNAL') throw error;
    return error.message;
  }
};
