import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { isErrno } from '../../agent/errors.ts';
import { hashFile } from './cache.ts';

const sha256Schema = z.string().regex(/^[0-9a-f]{64}$/);

const fileSchema = z.strictObject({
  /** bytes */
  size: z.number().int().positive(),
  sha256: sha256Schema,
});

/** out/initramfs/artefacts.json: what was built, and from what. */
export const artefactsSchema = z.strictObject({
  /** `uname -r` of vmlinuz */
  kernel: z.string(),
  /** SHA-256 over every input; equal inputs, equal files */
  inputs: sha256Schema,
  /** by path below the output folder */
  files: z.record(z.string(), fileSchema),
  /** tool packs: `packs/<sha256>.squashfs` */
  packs: z.record(z.string(), fileSchema),
  /** layers of initrd.img in the order in which they cover each other, the lowest first */
  layers: z.array(fileSchema.extend({ name: z.string() })),
  /** Debian packages by version */
  packages: z.record(z.string(), z.string()),
});
export type Artefacts = z.infer<typeof artefactsSchema>;

/** Name of the description in an output folder. */
export const ARTEFACTS = 'artefacts.json';

/** Size and hash of a file. */
export const describeFile = async (path: string): Promise<z.infer<typeof fileSchema>> => ({
  size: (await stat(path)).size,
  sha256: await hashFile(path),
});

/** What lies in an output folder, or null if nothing was built there. */
export const readArtefacts = async (out: string): Promise<Artefacts | null> => {
  try {
    return artefactsSchema.parse(JSON.parse(await readFile(join(out, ARTEFACTS), 'utf8')));
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return null;
    throw error;
  }
};
