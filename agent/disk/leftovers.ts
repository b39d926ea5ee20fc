import { readFile, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isErrno } from '../errors.ts';
import { isAlive, MARK, type OwnerMark, ownFolderKinds } from '../process/owner.ts';
import { type NotedLoop, notedLoops } from './loop-nodes.ts';
import { kernelNameOf, listNames, readAttribute, sysfsOf } from './sysfs.ts';

/**
 * A thing of the kernel's that an agent made and that outlived it: `mount` of a disk's content, `mapping`, `loop`,
 * `memory` (the tmpfs of a snapshot). Made by us beyond doubt: each carries its owner's mark.
 */
export interface Leftover {
  kind: 'mount' | 'mapping' | 'loop' | 'memory';
  /** for people, and what takes it down: a mount point, a name of device-mapper, a node */
  name: string;
}

/** What agents that no longer run have left, in the order in which it can be taken down. */
export const findLeftovers = async (): Promise<Leftover[]> => {
  const mounts = await ofTheDead(await ownMounts());
  const devices = await ofTheDead([...(await ownMappings()), ...(await ownLoops())]);
  const mountsOf = (kind: 'mount' | 'memory'): Leftover[] =>
    mounts
      .filter(({ path }) => isSnapshotFolder(path) === (kind === 'memory'))
      .map(({ path }) => ({ kind, name: path }));
  return [
    ...mountsOf('mount'),
    ...(await fromTheTop(devices)).map(({ kind, name }) => ({ kind, name })),
    ...mountsOf('memory'),
  ];
};

/** Names in the folder of temporary things, of agents that no longer run. */
export const findAbandonedFolders = async (): Promise<string[]> => {
  const found = (await listNames(tmpdir())).flatMap((name) => {
    const owner = ownerOfFolder(join(tmpdir(), name));
    return owner === null ? [] : [{ name, owner }];
  });
  return (await ofTheDead(found)).map(({ name }) => join(tmpdir(), name));
};

const ofTheDead = async <T extends { owner: OwnerMark }>(things: readonly T[]): Promise<T[]> => {
  const dead: T[] = [];
  for (const thing of things) if (!(await isAlive(thing.owner))) dead.push(thing);
  return dead;
};

const folderName = new RegExp(`^(?:${ownFolderKinds.join('|')})-(${MARK})-[A-Za-z0-9]{6}$`);

const ownerOfFolder = (path: string): OwnerMark | null => {
  const prefix = `${tmpdir()}/`;
  return path.startsWith(prefix) ? (folderName.exec(path.slice(prefix.length))?.[1] ?? null) : null;
};

const isSnapshotFolder = (path: string): boolean => path.startsWith(`${tmpdir()}/snapshot-`);

/** The last mount first. Field 5 of proc_pid_mountinfo(5), where blanks are octal: no name of ours has any. */
const ownMounts = async (): Promise<{ path: string; owner: OwnerMark }[]> =>
  (await readFile('/proc/self/mountinfo', 'utf8'))
    .trimEnd()
    .split('\n')
    .toReversed()
    .flatMap((line) => {
      const path = line.split(' ')[4] ?? '';
      const owner = ownerOfFolder(path);
      return owner === null ? [] : [{ path, owner }];
    });

interface Device {
  kind: 'mapping' | 'loop';
  name: string;
  kernelName: string;
  owner: OwnerMark;
}

const mappingNamed = new RegExp(`^fog-(${MARK})-\\d+$`);

const ownMappings = async (): Promise<Device[]> => {
  const found: Device[] = [];
  for (const kernelName of await listNames('/sys/block')) {
    const name = await readAttribute(sysfsOf(kernelName), 'dm/name');
    const owner = mappingNamed.exec(name ?? '')?.[1];
    if (name !== null && owner !== undefined) found.push({ kind: 'mapping', name, kernelName, owner });
  }
  return found;
};

const ownLoops = async (): Promise<Device[]> =>
  (await notedLoops()).map(({ node, owner }: NotedLoop) => ({
    ...{ kind: 'loop' as const, name: node, owner },
    kernelName: kernelNameOf(node),
  }));

/** A device before those that it stands on. */
const fromTheTop = async (devices: readonly Device[]): Promise<Device[]> => {
  const below = new Map<Device, ReadonlySet<string>>();
  for (const device of devices) below.set(device, await standsOn(device));
  const sorted: Device[] = [];
  let rest = [...devices];
  while (rest.length > 0) {
    const needed = new Set(rest.flatMap((device) => [...(below.get(device) ?? [])]));
    const top = rest.filter(({ kernelName }) => !needed.has(kernelName));
    // devices cannot stand on each other in a circle; should they seem to, the kernel says which is in use
    sorted.push(...(top.length > 0 ? top : rest));
    rest = top.length > 0 ? rest.filter((device) => !top.includes(device)) : [];
  }
  return sorted;
};

/** Kernel names. A loop device has no `slaves`: what it stands on is told by the path of its backing file. */
const standsOn = async ({ kind, kernelName }: Device): Promise<ReadonlySet<string>> => {
  if (kind === 'mapping') return new Set(await listNames(`${sysfsOf(kernelName)}/slaves`));
  const behind = await readAttribute(sysfsOf(kernelName), 'loop/backing_file');
  const name = behind?.startsWith('/dev/') ? await kernelNameAt(behind) : null;
  return new Set(name === null ? [] : [name]);
};

/** /dev/mapper/x -> dm-3: whichever way the node is named, the number is the device's. */
const kernelNameAt = async (node: string): Promise<string | null> => {
  try {
    const { rdev } = await stat(node);
    const [major, minor] = [(rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xfff00)];
    const uevent = await readFile(`/sys/dev/block/${major}:${minor}/uevent`, 'utf8');
    return /^DEVNAME=(.+)$/m.exec(uevent)?.[1] ?? null;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return null;
    throw error;
  }
};
