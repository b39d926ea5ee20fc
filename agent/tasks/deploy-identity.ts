import { isMountable } from '../disk/mount-writable.ts';
import { ImagingError } from '../errors.ts';
import { giveIdentity, type InstalledSystem } from '../os/identity.ts';
import type { Relocation } from '../os/windows-recovery.ts';
import type { ContainedVolume, ImageDisk, Manifest, Plan, TaskParams } from '../protocol/index.ts';
import type { TaskContext } from './context.ts';

export type IdentityParams = Pick<TaskParams<'deploy'>, 'setHostname' | 'freshMachineId'>;

/**
 * Refuse what a deploy is asked to do with name and identity and cannot: from image and plans alone, before
 * anything is written.
 *
 * @throws ImagingError OPTION_REFUSED
 */
export const assertIdentityPossible = (
  manifest: Manifest,
  plans: readonly Plan[],
  params: IdentityParams,
  hostName: string,
): void => {
  if (!params.setHostname && !params.freshMachineId) return;
  const filesystems = plans.flatMap((plan) => systemsOf(manifest, plan));
  const windows = filesystems.includes('ntfs');
  const linux = filesystems.some((type) => type !== 'ntfs' && isMountable(type));
  const option = params.setHostname ? 'setHostname' : 'freshMachineId';
  if (!windows && !linux) {
    const encrypted = filesystems.some((type) => type === 'crypto_LUKS' || type === 'BitLocker');
    throw refused(
      option,
      encrypted
        ? 'the operating system in this image is encrypted'
        : 'no operating system was found in this image when it was captured',
    );
  }
  if (params.freshMachineId && !linux) {
    throw refused('freshMachineId', 'the image holds Windows only; generalise it with sysprep');
  }
  if (!params.setHostname) return;
  if (windows && !isComputerName(computerName(hostName))) {
    throw refused(
      'setHostname',
      `Windows takes names of 1 to 15 letters, digits and hyphens, not of digits alone; this host is called ${JSON.stringify(hostName)}`,
    );
  }
  if (linux && !isHostname(hostName)) {
    throw refused(
      'setHostname',
      `Linux takes names of at most 64 letters, digits, hyphens and dots; this host is called ${JSON.stringify(hostName)}`,
    );
  }
};

const refused = (option: keyof IdentityParams, reason: string): ImagingError =>
  new ImagingError('OPTION_REFUSED', `Cannot deploy with ${option}: ${reason}`, { details: { option } });

/** NetBIOS name as Windows' own setup takes it: 15 characters, a host's label (RFC 1123), not a number. Pure. */
export const isComputerName = (name: string): boolean =>
  /^[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$/i.test(name) && !/^\d+$/.test(name);

/** hostname(7): labels of RFC 1123, 64 characters in all (the kernel's limit). Pure. */
export const isHostname = (name: string): boolean =>
  name.length <= 64 && name.split('.').every((label) => /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/i.test(label));

/** A computer name has no dots: the first label of a full one. */
const computerName = (hostName: string): string => hostName.split('.')[0] ?? '';

/** Filesystems of what was found to be an operating system at capture, in partitions and in volumes inside them. */
const systemsOf = (manifest: Manifest, plan: Plan): string[] => {
  const image = imageDiskOf(manifest, plan);
  return plan.partitions.flatMap(({ name, role, filesystem }) => {
    const contains = image?.partitions.find((one) => one.name === name)?.contains ?? [];
    return [
      ...(role === 'os' ? [filesystem] : []),
      ...contains.filter((volume) => volume.role === 'os').map(filesystemOf),
    ];
  });
};

/** The clear side of LUKS was open at capture; nothing opens it here. */
const filesystemOf = ({ kind, filesystem }: ContainedVolume): string =>
  kind === 'luks' ? 'crypto_LUKS' : (filesystem?.type ?? '');

const imageDiskOf = (manifest: Manifest, plan: Plan): ImageDisk | undefined =>
  manifest.disks.find(({ name }) => name === plan.imageDisk);

export interface SetIdentityOptions {
  manifest: Manifest;
  plan: Plan;
  params: IdentityParams;
  relocation: Relocation;
  /** name in the image -> device node */
  nodes: ReadonlyMap<string, string>;
  /** systems in volumes inside partitions (LVM), whose nodes the caller keeps open */
  volumes?: readonly InstalledSystem[];
  context: TaskContext;
}

/**
 * The deployed systems become this host's. Resolves with what was asked for and could not be done: the
 * disk is good otherwise, so the caller finishes it before it says that the task failed.
 *
 * @throws ImagingError FILESYSTEM_CHECK_FAILED, READ_BACK_MISMATCH
 */
export const setIdentity = async (options: SetIdentityOptions): Promise<ImagingError | null> => {
  const { manifest, plan, params, relocation, nodes, context } = options;
  // a further disk may hold no system: that there is one somewhere was asked before the first write
  const asked = systemsOf(manifest, plan).length > 0;
  const hostname = asked && params.setHostname ? context.hostName : null;
  const partitions = plan.partitions
    .filter(({ role, filesystem }) => role === 'os' || (role === 'recovery' && filesystem === 'ntfs'))
    .flatMap(({ name, filesystem }) => {
      const device = nodes.get(name);
      return device ? [{ name, device, filesystem }] : [];
    });
  const wish = { hostname, fresh: asked && params.freshMachineId, relocation };
  context.step('identity', hostname === null ? {} : { message: hostname });
  const systems = [...partitions, ...(options.volumes ?? [])];
  const { evidence, warnings, unmet } = await giveIdentity(systems, wish, context.signal);
  for (const { what, proof } of evidence) context.prove(what, proof);
  for (const warning of warnings) context.warn(warning);
  if (unmet.length === 0) return null;
  return new ImagingError(
    'OPTION_REFUSED',
    `Cannot set the identity of the deployed system, which is complete otherwise: ${unmet.join('; ')}`.slice(
      0,
      2000,
    ),
    { details: { unmet } },
  );
};

/**
 * Where Windows must look anew: partitions that lie elsewhere than at capture, and identifiers that the plan
 * makes afresh. `captured`: the version that is no smaller copy of another, where it is known. Pure.
 */
export const relocationOf = (captured: Manifest, plan: Plan): Relocation => {
  const image = imageDiskOf(captured, plan);
  const unsure = captured.derivedFrom !== null;
  const moves: { from: number; to: number }[] = [];
  const guids = new Map<string, string>();
  const renew = (from: string, to: string): void => {
    if (from !== '' && from.toLowerCase() !== to.toLowerCase())
      guids.set(from.toLowerCase(), to.toLowerCase());
  };
  if (!image) return { moves, guids, unsure };
  renew(image.tableId, plan.tableId);
  for (const { name, start, uuid } of plan.partitions) {
    const original = image.partitions.find((one) => one.name === name);
    if (!original) continue;
    moves.push({ from: original.start, to: start });
    renew(original.uuid, uuid);
  }
  return { moves, guids, unsure };
};
