import { dirname } from 'node:path';

/** The checkout: two folders above this file, and above out/bench, where scripts/bench compiles itself to. */
export const root: string = dirname(dirname(import.meta.dirname));
