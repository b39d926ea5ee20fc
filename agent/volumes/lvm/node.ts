import { flushDevice } from '../../disk/device-io.ts';
import { mapDevice } from '../../disk/device-mapper.ts';
import { detachLoop, setUpLoop } from '../../disk/loop-nodes.ts';
import { run } from '../../process/run.ts';
import type { LinearRun } from './group.ts';

/** A device node for a logical volume. Disposing takes it away, with all that was written through it. */
export interface VolumeNode extends AsyncDisposable {
  path: string;
}

export interface NodeOptions {
  writable: boolean;
  signal: AbortSignal;
}

/**
 * A node for a linear logical volume, without LVM activating anything: one run is a loop device (any kernel),
 * several are a mapping (device-mapper). `devices`: node of each physical volume, by key.
 *
 * @throws ImagingError TOOL_FAILED
 */
export const openRuns = async (
  runs: readonly LinearRun[],
  devices: ReadonlyMap<string, { device: string }>,
  { writable, signal }: NodeOptions,
): Promise<VolumeNode> => {
  const [first] = runs;
  const deviceOf = (one: LinearRun): string => devices.get(one.key)?.device ?? '';
  if (first && runs.length === 1) return await openLoop(deviceOf(first), first, { writable, signal });
  const table = runs.map(
    (one) => `${one.start / 512} ${one.length / 512} linear ${deviceOf(one)} ${one.offset / 512}`,
  );
  return await mapDevice(table, { readOnly: !writable, signal });
};

const openLoop = async (
  device: string,
  { offset, length }: LinearRun,
  { writable, signal }: NodeOptions,
): Promise<VolumeNode> => {
  const sectorSize = (await run('blockdev', ['--getss', device], { signal })).stdout.trim();
  const range = { start: offset, size: length };
  const path = await setUpLoop(device, { range, sectorSize: Number(sectorSize), writable });
  return {
    path,
    [Symbol.asyncDispose]: async () => {
      if (writable) await flushDevice(path);
      await detachLoop(path);
      // what was written lies in the device's own cache now
      if (writable) await flushDevice(device);
    },
  };
};
