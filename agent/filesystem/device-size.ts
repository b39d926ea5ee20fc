import { ImagingError } from '../errors.ts';
import { run } from '../process/run.ts';

/** Size of a block device node in bytes, from the kernel. */
export const deviceSize = async (device: string, signal: AbortSignal): Promise<number> => {
  const { stdout } = await run('blockdev', ['--getsize64', device], { signal });
  const size = Number(stdout.trim());
  if (Number.isSafeInteger(size) && size > 0) return size;
  throw new ImagingError('DISK_READ_FAILED', `Cannot measure ${device}: size ${stdout.trim()}`);
};
