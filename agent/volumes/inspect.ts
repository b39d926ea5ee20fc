import { hasCode, ImagingError, toImagingError } from '../errors.ts';
import { totalLength, uniteExtents } from '../filesystem/extents.ts';
import { driverFor } from '../filesystem/index.ts';
import { probe } from '../filesystem/probe.ts';
import { readOs } from '../os/os-facts.ts';
import type { FilesystemFacts } from '../protocol/index.ts';
import { refuseBitLocker } from './bitlocker/refuse.ts';
import { type OpenedLuks, openLuks, whyOpaque } from './luks.ts';
import { inspectMember } from './lvm/inspect.ts';
import { findMembers } from './lvm/members.ts';
import { isReplayable, replayJournal } from './replay.ts';
import { roleOfVolume } from './role.ts';
import { type Inspection, type Look, rawLook, type Volume } from './volume.ts';

export interface InspectOptions {
  signal: AbortSignal;
  /** passphrases for LUKS */
  keys: readonly string[];
  /** what is encrypted and cannot be opened, and single members of a RAID set: whole instead of refused */
  raw: boolean;
  /** the devices are snapshots: replay journals that need it */
  replay: boolean;
}

export type Inspected = Look & { warnings: string[] };

/**
 * What volumes hold and what of it is used, read-only. All volumes of one capture at once: a group of LVM may
 * span them. Looks in the order of the volumes. Everything that was opened to look inside is closed again.
 *
 * @throws ImagingError FILESYSTEM_DIRTY (NTFS: Windows must end its own hibernation), UNLOCK_FAILED (BitLocker,
 *   or keys that do not fit), LAYOUT_UNSUPPORTED (member of a RAID set)
 */
export const inspectVolumes = async (
  volumes: readonly Volume[],
  options: InspectOptions,
): Promise<Inspected[]> => {
  await using opened = new AsyncDisposableStack();
  const inspection: Session = {
    ...options,
    opened,
    ...{ members: new Map(), groups: new Map(), luks: new Map(), probed: new Map() },
    warn: () => undefined,
  };
  const physical: { device: string; size: number }[] = [];
  for (const volume of volumes) {
    const { type } = await probeOnce(volume.device, inspection);
    if (type === 'LVM2_member') physical.push(volume);
    const inner = type === 'crypto_LUKS' ? await unlock(volume, inspection) : null;
    if (!inner || typeof inner === 'string') continue;
    const { type: inside } = await probeOnce(inner.path, inspection);
    if (inside === 'LVM2_member') physical.push({ device: inner.path, size: inner.size });
  }
  inspection.members = await findMembers(physical);
  const looks: Inspected[] = [];
  for (const volume of volumes) {
    inspection.signal.throwIfAborted();
    const warnings: string[] = [];
    const warn = (text: string): void => void warnings.push(text);
    looks.push({ ...(await inspectVolume(volume, { ...inspection, warn })), warnings });
  }
  return looks;
};

interface Session extends Inspection {
  /** by device; a text says why it was not opened */
  luks: Map<string, OpenedLuks | string>;
  probed: Map<string, ReturnType<typeof probe>>;
}

const probeOnce = (device: string, { probed, signal }: Session): ReturnType<typeof probe> => {
  const before = probed.get(device);
  if (before) return before;
  const found = probe(device, { signal });
  probed.set(device, found);
  return found;
};

const inspectVolume = async (volume: Volume, session: Session): Promise<Look> => {
  const look = await lookInto(volume, session);
  if (look.method === 'raw' && look.reason) {
    session.warn(`${volume.name} is kept whole: ${look.reason}`);
  }
  return look;
};

const lookInto = async (volume: Volume, session: Session): Promise<Look> => {
  const { device } = volume;
  // numbers of nodes come again: only the volumes that were given are known by their device
  const found = volume.partition
    ? await probeOnce(device, session)
    : await probe(device, { signal: session.signal });
  const { type } = found;
  const facts = { type, uuid: found.uuid, label: found.label, minimumBytes: null, usedBytes: null };
  if (found.ambiguous) return rawLook(volume, facts, 'it carries the signatures of several filesystems');
  if (type === '') return rawLook(volume, null, '');
  if (type === 'LVM2_member') {
    return await inspectMember(volume, facts, session, (inner) => inspectVolume(inner, session));
  }
  if (type === 'crypto_LUKS') return await inspectLuks(volume, facts, session);
  if (type === 'BitLocker') {
    if (!session.raw) throw refuseBitLocker(volume, 'it was not opened');
    return rawLook(volume, facts, 'it is encrypted with BitLocker, and the task asks for a raw copy');
  }
  if (/_raid_member$/.test(type)) return keepRaidMember(volume, facts, session);
  return await inspectFilesystem(volume, facts, session);
};

/**
 * One member alone is half of something: its copy beside the original is taken for the other half, and a
 * resync writes one over the other.
 */
const keepRaidMember = (volume: Volume, facts: FilesystemFacts, { raw }: Session): Look => {
  const reason = `it is a member of a RAID set (${facts.type})`;
  if (raw) return rawLook(volume, facts, `${reason}; never start its copy beside the original`);
  throw new ImagingError(
    'LAYOUT_UNSUPPORTED',
    `Cannot capture ${volume.name}: ${reason}; a copy of one member is not a copy of the set. The task's option "raw" copies it all the same (${volume.size} bytes)`,
    { details: { volume: volume.name, rawBytes: volume.size, type: facts.type } },
  );
};

const unlock = async (volume: Volume, session: Session): Promise<OpenedLuks | string> => {
  const before = session.luks.get(volume.device);
  if (before !== undefined) return before;
  const inner = await tryUnlock(volume, session);
  session.luks.set(volume.device, typeof inner === 'string' ? inner : session.opened.use(inner));
  return inner;
};

/** The clear side, or why there is none. @throws ImagingError UNLOCK_FAILED: there are keys, and none fits */
const tryUnlock = async ({ device, name, size }: Volume, session: Session): Promise<OpenedLuks | string> => {
  const { keys, raw, replay, signal } = session;
  if (keys.length === 0) return 'it is encrypted (LUKS), and the task brings no key';
  try {
    const opaque = await whyOpaque(device, signal);
    if (opaque !== null) return `it is encrypted (LUKS), and ${opaque}`;
    return await openLuks(device, keys, { writable: replay, signal });
  } catch (thrown) {
    const error = toImagingError(thrown);
    if (error.code === 'TOOL_FAILED' || error.code === 'TOOL_TIMEOUT') return error.message;
    if (error.code !== 'UNLOCK_FAILED') throw error;
    if (raw) return "it is encrypted (LUKS), and none of the task's keys opens it";
    throw new ImagingError(
      'UNLOCK_FAILED',
      `Cannot unlock ${name}: none of the task's keys opens it; without a key, or with the option "raw", all of its ${size} bytes are captured`,
      { details: { volume: name, rawBytes: size }, cause: error },
    );
  }
};

/** Ciphertext of what is used inside, and header and keyslots before it: what is captured stays encrypted. */
const inspectLuks = async (volume: Volume, facts: FilesystemFacts, session: Session): Promise<Look> => {
  // one inside a logical volume must be closed before that volume's node goes
  await using own = new AsyncDisposableStack();
  const inner = volume.partition ? await unlock(volume, session) : await tryUnlock(volume, session);
  if (typeof inner === 'string') return rawLook(volume, facts, inner);
  if (!volume.partition) own.use(inner);
  const { path, dataOffset, size, sectorSize } = inner;
  if (dataOffset + size > volume.size) return rawLook(volume, facts, 'its data reaches beyond it');
  const name = `${volume.name} (LUKS)`;
  const look = await inspectVolume({ device: path, size, name, partition: false }, session);
  const self = {
    kind: 'luks' as const,
    name: facts.uuid,
    uuid: facts.uuid,
    size,
    role: roleOfVolume(look),
    filesystem: look.filesystem,
    method: look.method,
    reason: look.reason,
  };
  const header = { offset: 0, length: dataOffset };
  const data = look.extents.map(({ offset, length }) => {
    // a ciphertext sector that is cut cannot be decrypted
    const from = Math.floor(offset / sectorSize) * sectorSize;
    const to = Math.ceil((offset + length) / sectorSize) * sectorSize;
    return { offset: dataOffset + from, length: to - from };
  });
  const extents = uniteExtents([header, ...data], volume.size);
  return {
    filesystem: { ...facts, usedBytes: totalLength(extents) },
    method: 'used',
    reason: '',
    extents,
    os: look.os,
    contains: [self, ...look.contains],
    dirty: look.dirty,
  };
};

/** where mkswap writes its header and signature, with the largest pages that Linux has */
const SWAP_HEADER = 64 * 1024;

const inspectFilesystem = async (volume: Volume, facts: FilesystemFacts, session: Session): Promise<Look> => {
  const { device, size, partition } = volume;
  const { signal } = session;
  const { type } = facts;
  const driver = driverFor(type);
  if (!driver) return rawLook(volume, facts, `no driver for ${type}`);
  const clean = { reason: '', os: null, contains: [], dirty: false };
  if (driver.recreate) {
    if (partition) return { ...clean, filesystem: facts, method: 'recreate', extents: [] };
    const extents = [{ offset: 0, length: Math.min(SWAP_HEADER, size) }];
    return {
      ...clean,
      filesystem: { ...facts, usedBytes: totalLength(extents) },
      method: 'used',
      extents,
    };
  }
  const os = await readOs(device, type, signal);
  try {
    await checkOrReplay(volume, type, session);
    const { extents, minimumBytes } = await driver.usage(device, size, signal);
    const usedBytes = totalLength(extents);
    return { ...clean, filesystem: { ...facts, minimumBytes, usedBytes }, method: 'used', extents, os };
  } catch (thrown) {
    const error = toImagingError(thrown);
    if (hasCode(error, 'TASK_CANCELLED')) throw error;
    const dirty = hasCode(error, 'FILESYSTEM_DIRTY');
    // Windows must end its own hibernation; a raw copy of it would be a trap for whoever deploys it
    if (dirty && type === 'ntfs') throw error;
    return rawLook(volume, facts, error.message, { os, dirty: dirty && isReplayable(type) });
  }
};

const checkOrReplay = async ({ device }: Volume, type: string, session: Session): Promise<void> => {
  const { replay, signal } = session;
  const driver = driverFor(type);
  try {
    await driver?.check(device, signal);
  } catch (error) {
    if (!replay || !isReplayable(type) || !hasCode(error, 'FILESYSTEM_DIRTY')) throw error;
    await replayJournal(device, type, signal);
    await driver?.check(device, signal);
  }
};
