/**
 * Every error that a person or the server sees has a code from this table. Codes are API: they are
 * never renamed, and the README lists them. `retryable` says whether the same call may work later
 * without anybody changing anything (a server restart, a cable), never whether a task is re-run.
 */
export const errorCodes = {
  BAD_REQUEST: { retryable: false, meaning: 'the request does not match its schema' },
  BOOT_ENTRY_FAILED: { retryable: false, meaning: 'the EFI boot entry could not be set and read back' },
  CERTIFICATE_INVALID: {
    retryable: false,
    meaning: 'a certificate of erasure was altered, or is not signed by this key',
  },
  CHUNK_CORRUPT: { retryable: false, meaning: 'a stored chunk does not hash to its name' },
  CHUNK_MISSING: { retryable: false, meaning: 'a chunk that an image version needs is not in the store' },
  CONFIG_INVALID: { retryable: false, meaning: 'an option, the kernel command line or site.json is wrong' },
  CONFLICT: { retryable: false, meaning: 'the thing is in a state that does not allow this' },
  DISK_AMBIGUOUS: { retryable: false, meaning: 'several disks could be meant and no hint says which' },
  DISK_CHANGED: { retryable: false, meaning: 'the disk is not the one that was chosen' },
  DISK_FROZEN: {
    retryable: false,
    meaning: "the firmware has frozen the drive's security commands until it is switched off and on",
  },
  DISK_IN_USE: { retryable: false, meaning: 'the disk is mounted, or held by md, LVM or device-mapper' },
  DISK_LOCKED: { retryable: false, meaning: 'the drive is locked with a password' },
  DISK_NOT_FOUND: { retryable: false, meaning: 'no disk matches' },
  DISK_LOST: { retryable: false, meaning: 'the disk vanished while it was worked on' },
  DISK_READ_FAILED: { retryable: false, meaning: 'the disk returned a read error' },
  DISK_STALLED: { retryable: false, meaning: 'the disk answered nothing for minutes' },
  DISK_WRITE_FAILED: { retryable: false, meaning: 'the disk returned a write error' },
  FILESYSTEM_CHECK_FAILED: { retryable: false, meaning: "the filesystem's own checker found damage" },
  FILESYSTEM_DIRTY: {
    retryable: false,
    meaning: 'the filesystem is hibernated or was not unmounted cleanly',
  },
  FIRMWARE_MISMATCH: { retryable: false, meaning: 'a UEFI image for a BIOS machine, or the reverse' },
  IMAGE_DAMAGED: {
    retryable: false,
    meaning: 'the image lacks sectors that could not be read at capture, and the task does not allow that',
  },
  IMAGE_INVALID: { retryable: false, meaning: 'a manifest, index or map is malformed or contradicts itself' },
  IMAGE_NOT_FOUND: { retryable: false, meaning: 'no such image or version' },
  IMAGE_UNTRUSTED: { retryable: false, meaning: 'the manifest is not signed by this server' },
  INTERNAL: { retryable: false, meaning: 'a defect in this software' },
  LAYOUT_UNSUPPORTED: { retryable: false, meaning: 'a partition layout that cannot be imaged or deployed' },
  LEASE_LOST: { retryable: false, meaning: 'the task now belongs to another attempt' },
  NETWORK_UNREACHABLE: { retryable: true, meaning: 'no network interface reaches the server' },
  NOT_FOUND: { retryable: false, meaning: 'no such thing' },
  OPTION_REFUSED: {
    retryable: false,
    meaning: 'an option of the task cannot be honoured on this image or disk',
  },
  PURGE_FAILED: {
    retryable: false,
    meaning: 'the drive says that its own erasure failed, or keeps data that it says to have erased',
  },
  PURGE_IMPOSSIBLE: {
    retryable: false,
    meaning: 'the drive has no way to erase itself that a purge accepts',
  },
  READ_BACK_MISMATCH: { retryable: false, meaning: 'the disk returned other bytes than were written' },
  SCRATCH_FULL: {
    retryable: false,
    meaning: 'the server has no room to make a smaller version of the image',
  },
  SECTOR_SIZE_MISMATCH: { retryable: false, meaning: 'image and disk differ in logical sector size' },
  SERVER_ERROR: { retryable: true, meaning: 'the server failed to answer properly' },
  SERVER_UNREACHABLE: { retryable: true, meaning: 'the server does not answer' },
  STORE_FULL: { retryable: false, meaning: "the server's store has no space left" },
  TARGET_TOO_SMALL: { retryable: false, meaning: 'the image does not fit the disk' },
  TASK_CANCELLED: { retryable: false, meaning: 'an administrator or technician cancelled the task' },
  TOOL_FAILED: { retryable: false, meaning: 'a tool ended with an error' },
  TOOL_MISSING: { retryable: false, meaning: 'a tool is not installed' },
  TOOL_TIMEOUT: { retryable: false, meaning: 'a tool did not end in its time' },
  UNLOCK_FAILED: { retryable: false, meaning: 'no key opens the encrypted volume, or there is none' },
  WIPE_INCOMPLETE: {
    retryable: false,
    meaning: 'partially erased: not all of the disk could be overwritten',
  },
  UNAUTHORIZED: { retryable: false, meaning: 'the token is missing, wrong or used up' },
} as const;

export type ErrorCode = keyof typeof errorCodes;

export interface ImagingErrorOptions {
  /** Facts for the reader: sizes in bytes, serials, paths. JSON only; never a token or key. */
  details?: Record<string, unknown>;
  cause?: unknown;
}

/** The one error family of agent and server. `message` reads "Cannot <do>: <reason>". */
export class ImagingError extends Error {
  readonly code: ErrorCode;
  readonly details: Record<string, unknown>;
  readonly retryable: boolean;

  constructor(code: ErrorCode, message: string, options: ImagingErrorOptions = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.name = 'ImagingError';
    this.code = code;
    this.details = options.details ?? {};
    this.retryable = errorCodes[code].retryable;
  }
}

export const isImagingError = (error: unknown): error is ImagingError => error instanceof ImagingError;

export const hasCode = (error: unknown, code: ErrorCode): boolean =>
  isImagingError(error) && error.code === code;

/** Anything thrown, as an ImagingError: what is not one already is a defect, and says so. */
export const toImagingError = (error: unknown): ImagingError => {
  if (isImagingError(error)) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new ImagingError('INTERNAL', message, { cause: error });
};

/** True for a Node system error with this errno name (`ENOSPC`, `ENOENT`, …). */
export const isErrno = (error: unknown, name: string): boolean =>
  error instanceof Error && 'code' in error && error.code === name;
