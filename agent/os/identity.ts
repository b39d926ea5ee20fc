import { flushDevice } from '../disk/device-io.ts';
import { type Mount, mountReadOnly } from '../disk/mount.ts';
import { isMountable, mountWritable } from '../disk/mount-writable.ts';
import { hasCode, ImagingError, isErrno } from '../errors.ts';
import { driverFor } from '../filesystem/index.ts';
import { type Changes, differences, type ExpectedFile, noChanges } from './change.ts';
import { changeLinux } from './linux-identity.ts';
import { findLinuxRoot } from './linux-root.ts';
import { openTree, type Tree } from './tree.ts';
import { renameWindows } from './windows-name.ts';
import { isRelocated, type Relocation, relocateRecovery } from './windows-recovery.ts';

/** A filesystem that may hold an operating system: a partition's, or that of a volume inside one. */
export interface InstalledSystem {
  /** for people: `p2`, `vg/root` */
  name: string;
  device: string;
  /** libblkid's name */
  filesystem: string;
}

export interface IdentityWish {
  /** null: every system keeps its name */
  hostname: string | null;
  /** fresh machine-id and SSH host keys in Linux */
  fresh: boolean;
  relocation: Relocation;
}

export type IdentityOutcome = Pick<Changes, 'evidence' | 'warnings' | 'unmet'>;

/**
 * Make deployed systems this machine's: names, ids, keys, and where Windows finds its recovery. Each
 * filesystem is mounted by itself, changed, unmounted, checked by its own tool, and looked at once more.
 * What could not be done is in `unmet`; whether that fails the task is the caller's to say.
 *
 * @throws ImagingError FILESYSTEM_CHECK_FAILED, READ_BACK_MISMATCH: a filesystem is not as it must be
 */
export const giveIdentity = async (
  systems: readonly InstalledSystem[],
  wish: IdentityWish,
  signal: AbortSignal,
): Promise<IdentityOutcome> => {
  const outcome = noChanges();
  let named = 0;
  for (const system of systems) {
    signal.throwIfAborted();
    if (!wants(system, wish)) continue;
    const found = await changeSystem(system, wish, signal);
    if (!found) continue;
    if (found.system) named++;
    const { changes } = found;
    const of = (text: string): string => `${system.name}: ${text}`;
    outcome.evidence.push(...changes.evidence.map(({ what, proof }) => ({ what: of(what), proof })));
    outcome.warnings.push(...changes.warnings.map(of));
    outcome.unmet.push(...changes.unmet.map(of));
  }
  if (named === 0 && (wish.hostname !== null || wish.fresh)) {
    outcome.unmet.push('no operating system was found whose identity could be changed');
  }
  return outcome;
};

const wants = ({ filesystem }: InstalledSystem, { hostname, fresh, relocation }: IdentityWish): boolean =>
  filesystem === 'ntfs'
    ? hostname !== null || isRelocated(relocation)
    : isMountable(filesystem) && (hostname !== null || fresh);

/** Null where nothing that is known lives in it. */
const changeSystem = async (
  system: InstalledSystem,
  wish: IdentityWish,
  signal: AbortSignal,
): Promise<Found | null> => {
  const { device, filesystem } = system;
  let mount: Mount;
  try {
    mount = await mountWritable(device, filesystem, { signal });
  } catch (error) {
    if (!hasCode(error, 'TOOL_FAILED') || !(error instanceof Error)) throw error;
    return { system: true, changes: { ...noChanges(), unmet: [error.message] } };
  }
  let found: Found | null;
  try {
    await using tree = await openTree(mount.path, { ignoreCase: filesystem === 'ntfs' });
    found = await changeTree(tree, system, wish, signal);
  } catch (error) {
    if (isErrno(error, 'ENOSPC') || isErrno(error, 'EDQUOT')) {
      found = { system: true, changes: { ...noChanges(), unmet: ['the filesystem is full'] } };
    } else if (['EIO', 'EROFS', 'EUCLEAN'].some((name) => isErrno(error, name))) {
      throw new ImagingError('FILESYSTEM_CHECK_FAILED', `Cannot change ${system.name}: it is damaged`, {
        details: { device },
        cause: error,
      });
    } else throw error;
  } finally {
    await mount[Symbol.asyncDispose]();
    await flushDevice(device);
  }
  await checkAgain(system, found?.changes.files ?? [], signal);
  return found;
};

interface Found {
  /** an operating system lives here */
  system: boolean;
  changes: Changes;
}

const changeTree = async (
  tree: Tree,
  { filesystem }: InstalledSystem,
  { hostname, fresh, relocation }: IdentityWish,
  signal: AbortSignal,
): Promise<Found | null> => {
  if (filesystem !== 'ntfs') {
    const root = await findLinuxRoot(tree);
    return root === null
      ? null
      : { system: true, changes: await changeLinux(tree, root, { hostname, fresh }) };
  }
  const renamed = hostname === null ? null : await renameWindows(tree, hostname, signal);
  const relocated = isRelocated(relocation) ? await relocateRecovery(tree, relocation) : null;
  const parts = [renamed, relocated].filter((part) => part !== null);
  return {
    system: renamed !== null,
    changes: {
      evidence: parts.flatMap(({ evidence }) => evidence),
      warnings: parts.flatMap(({ warnings }) => warnings),
      unmet: parts.flatMap(({ unmet }) => unmet),
      files: parts.flatMap(({ files }) => files),
    },
  };
};

/** The filesystem's own check, and every file through a new mount. */
const checkAgain = async (
  { name, device, filesystem }: InstalledSystem,
  files: readonly ExpectedFile[],
  signal: AbortSignal,
): Promise<void> => {
  await driverFor(filesystem)?.check(device, signal);
  await using mount = await mountReadOnly(device, filesystem, { signal });
  await using tree = await openTree(mount.path, { ignoreCase: filesystem === 'ntfs' });
  const wrong = await differences(tree, files);
  if (wrong.length === 0) return;
  throw new ImagingError('READ_BACK_MISMATCH', `Cannot change ${name}: it returns other files than written`, {
    details: { device, wrong },
  });
};
