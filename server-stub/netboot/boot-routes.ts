import fastifyStatic from '@fastify/static';
import type {
  FastifyBaseLogger,
  FastifyInstance,
  FastifyPluginAsync,
  FastifyReply,
  FastifyRequest,
} from 'fastify';
import { ImagingError } from '../../agent/errors.ts';
import type { Site } from '../../agent/protocol/index.ts';
import { bootLoaders, initrdFile, kernelFile } from './artefacts.ts';
import type { BootDecision } from './boot-decision.ts';
import { agentConfig, askConfig, diskConfig } from './grub-config.ts';
import { resetWhenOver } from './grub-connection.ts';
import { withHeaderCase } from './header-case.ts';
import { agentScript, askScript, diskScript } from './ipxe-script.ts';
import { createPendingSites, type PendingSites } from './pending-sites.ts';
import { siteCpio } from './site-cpio.ts';
import { parseLoaderPath, parseMac, parseNonce, parseServerUrl, parseUuid } from './words.ts';

export interface BootDeps {
  /** what this machine boots; asked once for each boot script */
  decide(machine: { mac?: string; uuid?: string }): Promise<BootDecision>;
  /** folder with vmlinuz, initrd.img and the boot loaders */
  artefactsFolder: string;
  /** what the agent finds in /fog/site.json; `serverUrl` is the address that the machine used */
  siteFor(token: string, serverUrl: string): Site;
  log: Pick<FastifyBaseLogger, 'info' | 'warn'>;
  /** more words for the agent's kernel command line */
  kernelArguments?: readonly string[];
  pendingSites?: PendingSites;
}

const ETHERNET_CONFIG = /^([0-9A-Fa-f:-]{17})\.cfg$/;

/**
 * `/boot/…`: what firmware and boot loaders fetch. GET only and without a login, so nothing here changes
 * anything except that a per-boot archive is given out once.
 */
export const bootRoutes =
  (deps: BootDeps): FastifyPluginAsync =>
  async (app) => {
    const sites = deps.pendingSites ?? createPendingSites();
    const options = { schema: { hide: true } };
    app.addHook('onRequest', async (request, reply) => {
      withHeaderCase(reply.raw);
      resetWhenOver(request.raw, reply.raw);
    });

    app.get<{ Querystring: { mac?: string; uuid?: string } }>(
      '/boot/ipxe',
      options,
      async (request, reply) => {
        const { mac, uuid } = request.query;
        const serverUrl = serverUrlOf(request);
        text(reply);
        if (!mac && !uuid) return askScript(serverUrl);
        const machine = machineOf(one(mac), one(uuid));
        const decision = await decide(deps, request, machine);
        if (decision.kind === 'disk') return diskScript();
        const nonce = sites.add(deps.siteFor(decision.token, serverUrl));
        return agentScript({ serverUrl, nonce, mac: machine.mac, kernelArguments: deps.kernelArguments });
      },
    );

    // for a GRUB that came by HTTP boot: its own folder is where it was loaded from
    app.get('/boot/files/grub/grub.cfg', options, (request, reply) =>
      text(reply).send(askConfig(serverUrlOf(request))),
    );
    app.get('/boot/files/autoexec.ipxe', options, (request, reply) =>
      text(reply).send(askScript(serverUrlOf(request))),
    );

    app.get<{ Params: { name: string } }>('/boot/grub/:name', options, async (request, reply) => {
      const mac = ETHERNET_CONFIG.exec(request.params.name)?.[1];
      const machine = machineOf(parseMac(mac ?? request.params.name), undefined);
      const decision = await decide(deps, request, machine);
      text(reply);
      if (decision.kind === 'disk') return diskConfig(safeLoader(deps, decision.efiLoader));
      const serverUrl = serverUrlOf(request);
      const nonce = sites.add(deps.siteFor(decision.token, serverUrl));
      return agentConfig({ serverUrl, nonce, mac: machine.mac, kernelArguments: deps.kernelArguments });
    });

    app.get<{ Params: { name: string } }>('/boot/site/:name', options, (request, reply) => {
      const nonce = parseNonce(request.params.name.replace(/\.cpio$/, ''));
      const site = sites.take(nonce);
      if (!site) throw new ImagingError('NOT_FOUND', 'Cannot boot: this boot handle is used up or too old');
      deps.log.info({ ip: request.ip }, 'boot: site given out');
      return reply.header('cache-control', 'no-store').type('application/octet-stream').send(siteCpio(site));
    });

    await staticFiles(app, deps.artefactsFolder, '/boot/', [kernelFile, initrdFile]);
    await staticFiles(app, deps.artefactsFolder, '/boot/files/', bootLoaders);
  };

/** Files as they are, by name: with ETag and ranges, kept by caches as long as the server confirms them. */
const staticFiles = async (
  app: FastifyInstance,
  root: string,
  prefix: string,
  names: readonly string[],
): Promise<void> => {
  const allowed = new Set(names.map((name) => `/${name}`));
  await app.register(fastifyStatic, {
    ...{ root, prefix, decorateReply: false, index: false, dotfiles: 'deny', schemaHide: true },
    allowedPath: (path: string) => allowed.has(path),
    cacheControl: false,
    setHeaders: (reply) => {
      reply.header('cache-control', 'public, no-cache');
      reply.header('content-type', 'application/octet-stream');
    },
  });
};

const decide = async (
  deps: BootDeps,
  request: FastifyRequest,
  machine: { mac?: string; uuid?: string },
): Promise<BootDecision> => {
  const decision = await deps.decide(machine);
  deps.log.info({ ...machine, ip: request.ip, boots: decision.kind }, 'boot: asked');
  return decision;
};

const machineOf = (mac: string | undefined, uuid: string | undefined): { mac?: string; uuid?: string } => {
  const known = uuid ? parseUuid(uuid) : undefined;
  return { ...(mac ? { mac: parseMac(mac) } : {}), ...(known ? { uuid: known } : {}) };
};

/** `?mac=a&mac=b` arrives as an array. */
const one = (value: unknown): string | undefined => {
  if (value === undefined || typeof value === 'string') return value;
  throw new ImagingError('BAD_REQUEST', 'Cannot boot: an address is given more than once');
};

/** Inventory reports what a machine's firmware says; what is not a plain path is not put into a script. */
const safeLoader = (deps: BootDeps, efiLoader: string | undefined): string | undefined => {
  if (efiLoader === undefined) return undefined;
  try {
    return parseLoaderPath(efiLoader);
  } catch (err) {
    deps.log.warn({ err, efiLoader }, 'boot: the loader known from inventory cannot be used');
    return undefined;
  }
};

/**
 * The address by which the machine reached us, for what it fetches next. GRUB 2.12 leaves the port out
 * of its Host header: then it is the one that the connection came in on.
 */
const serverUrlOf = (request: FastifyRequest): string => {
  const host = request.headers.host ?? '';
  const named = /^[^:]+$/.test(host) ? `${host}:${request.socket.localPort ?? 80}` : host;
  return parseServerUrl(`http://${named}`).url;
};

const text = (reply: FastifyReply): FastifyReply =>
  reply.header('cache-control', 'no-store').type('text/plain; charset=utf-8');
