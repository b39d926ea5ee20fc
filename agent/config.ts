import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { ImagingError, isErrno } from './errors.ts';
import { siteSchema } from './protocol/index.ts';

/** How the agent runs. Frozen; read once. */
export interface Config {
  server: string;
  token: string;
  publicKey: string;
  ca?: string;
  /** MAC of the interface that booted, if the boot loader told */
  bootMac?: string;
  /** never restart or power off the machine */
  stay: boolean;
}

export interface ConfigSources {
  /** command line of the agent */
  flags?: { server?: string; token?: string; stay?: boolean };
  env?: Record<string, string | undefined>;
  cmdlinePath?: string;
  sitePath?: string;
}

const cmdlineSchema = z.object({
  server: z.url().optional(),
  stay: z.boolean().default(false),
  bootMac: z
    .string()
    .regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/)
    .optional(),
});

/**
 * Flags go before the kernel command line, that before the environment, that before site.json of the
 * boot. The public key and the CA come from site.json alone: nothing weaker may replace them.
 *
 * @throws ImagingError CONFIG_INVALID
 */
export const readConfig = async (sources: ConfigSources = {}): Promise<Config> => {
  const {
    flags = {},
    env = process.env,
    cmdlinePath = '/proc/cmdline',
    sitePath = '/fog/site.json',
  } = sources;
  const cmdline = parseCmdline(await readIfThere(cmdlinePath));
  const siteText = await readIfThere(sitePath);
  if (!siteText) {
    throw new ImagingError(
      'CONFIG_INVALID',
      `Cannot find the task server: ${sitePath} is missing (was this machine started by the server?)`,
    );
  }
  const site = parse(siteSchema, JSON.parse(siteText), sitePath);
  const server = flags.server ?? cmdline.server ?? env['FOG_SERVER'] ?? site.server;
  return Object.freeze({
    server: parse(z.url(), server, 'server'),
    token: flags.token ?? env['FOG_TOKEN'] ?? site.token,
    publicKey: site.publicKey,
    ...(site.ca === undefined ? {} : { ca: site.ca }),
    ...(cmdline.bootMac === undefined ? {} : { bootMac: cmdline.bootMac }),
    stay: flags.stay ?? cmdline.stay,
  });
};

/** `fog.server=URL fog.stay BOOTIF=01-aa-bb-cc-dd-ee-ff`; an unknown `fog.` word is an error, the rest is the kernel's. */
export const parseCmdline = (text: string): z.infer<typeof cmdlineSchema> => {
  const words = text.trim().split(/\s+/);
  const found: Record<string, unknown> = {};
  for (const word of words) {
    const [name = '', ...rest] = word.split('=');
    const value = rest.join('=');
    if (name === 'BOOTIF')
      found['bootMac'] = value
        .toLowerCase()
        .replace(/^01[-:]/, '')
        .replaceAll('-', ':');
    else if (name === 'fog.server') found['server'] = value;
    else if (name === 'fog.stay') found['stay'] = true;
    else if (name === 'fog.debug')
      continue; // init's
    else if (name.startsWith('fog.')) {
      throw new ImagingError('CONFIG_INVALID', `Cannot read the kernel command line: unknown option ${name}`);
    }
  }
  return parse(cmdlineSchema, found, 'the kernel command line');
};

const readIfThere = async (path: string): Promise<string> => {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return '';
    throw error;
  }
};

const parse = <S extends z.ZodType>(schema: S, value: unknown, what: string): z.output<S> => {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new ImagingError('CONFIG_INVALID', `Cannot read ${what}: ${z.prettifyError(parsed.error)}`);
};
