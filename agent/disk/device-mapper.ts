import { ownMark } from '../process/owner.ts';
import { run } from '../process/run.ts';

export interface MappedDevice extends AsyncDisposable {
  readonly path: string;
  readonly name: string;
}

export interface MapOptions {
  readOnly: boolean;
  signal?: AbortSignal;
}

let made = 0;

/** A name for a mapping of ours, with its owner: no volume group of a disk that we look at can have it. */
export const mappingName = (): string => `fog-${ownMark()}-${++made}`;

/**
 * A device-mapper device of one table (Documentation/admin-guide/device-mapper). Disposing removes it.
 *
 * @throws ImagingError TOOL_FAILED: also where the kernel has no device-mapper
 */
export const mapDevice = async (
  table: readonly string[],
  { readOnly, signal }: MapOptions,
): Promise<MappedDevice> => {
  const name = mappingName();
  signal?.throwIfAborted();
  // not cancelled in the middle: what it had made would stay
  await run('dmsetup', ['create', ...(readOnly ? ['--readonly'] : []), name], {
    input: `${table.join('\n')}\n`,
  });
  return {
    name,
    path: `/dev/mapper/${name}`,
    // a prober of udev may have it open for a moment
    [Symbol.asyncDispose]: async () => void (await run('dmsetup', ['remove', '--retry', name])),
  };
};

/** What the kernel says of a mapping, without start and length: `snapshot 16/4096 16`. */
export const mappingStatus = async (name: string, signal?: AbortSignal): Promise<string> => {
  const { stdout } = await run('dmsetup', ['status', name], signal ? { signal } : {});
  return stdout.trim().replace(/^\d+ \d+ /, '');
};
