import { ImagingError } from '../errors.ts';

/** The filesystem waits for its own system, or for a journal to be replayed. `reason` says what to do, too. */
export const dirty = (device: string, reason: string): ImagingError =>
  new ImagingError('FILESYSTEM_DIRTY', `Cannot capture ${device}: ${reason}`, { details: { device } });

/** The filesystem's own checker, or we, found damage. */
export const damaged = (
  device: string,
  reason: string,
  details: Record<string, unknown> = {},
): ImagingError =>
  new ImagingError('FILESYSTEM_CHECK_FAILED', `Cannot trust ${device}: ${reason}`, {
    details: { device, ...details },
  });

/** Sound perhaps, but nobody can say for certain which blocks it uses: the caller keeps it whole. */
export const distrusted = (device: string, reason: string): ImagingError =>
  new ImagingError('TOOL_FAILED', `Cannot trust a map of ${device}: ${reason}`);
