import type { Identity } from '../protocol/index.ts';

/** `bootMac`: BOOTIF of the kernel command line, any common spelling. */
export declare const readIdentity: (options?: { root?: string; bootMac?: string }) => Promise<Identity>;
