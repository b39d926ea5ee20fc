import { dirname } from 'node:path';

/** The checkout. */
export const root: string = dirname(dirname(import.meta.dirname));
