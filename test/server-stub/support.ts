import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import type { ExecutionContext } from 'ava';
import type { FastifyInstance, InjectOptions, LightMyRequestResponse } from 'fastify';
import { encodeCaibx } from '../../agent/image/caibx.ts';
import type { StoredChunk } from '../../agent/image/chunk-store.ts';
import { chunkId, compressFrame } from '../../agent/image/codec.ts';
import { packStream } from '../../agent/image/pack.ts';
import { frameLimit, type Manifest, type WipedDisk } from '../../agent/protocol/index.ts';
import { type AppDeps, buildApp } from '../../server-stub/app.ts';
import { decideBoot } from '../../server-stub/decide.ts';

export interface TestServer {
  app: FastifyInstance;
  data: string;
  /** of the fake clock: ms since 1970 */
  clock: { now: number };
  /** a request of the administrator */
  admin(options: InjectOptions): Promise<LightMyRequestResponse>;
  close(): Promise<void>;
}

export const tempFolder = async (t: ExecutionContext): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), 'fog-server-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
};

/** A server without a socket, with a clock that the test owns. */
export const testServer = async (t: ExecutionContext, deps: Partial<AppDeps> = {}): Promise<TestServer> => {
  const data = deps.data ?? (await tempFolder(t));
  const clock = { now: Date.parse('2026-01-02T03:04:05Z') };
  const app = await buildApp({
    now: () => clock.now,
    ...deps,
    data,
    // sweeps happen when a test says so
    settings: { sweepMs: 1_000_000, nothingGraceMs: 0, longPollMs: 0, ...deps.settings },
  });
  let open = true;
  const close = async (): Promise<void> => {
    if (open) await app.close();
    open = false;
  };
  t.teardown(close);
  const admin = (options: InjectOptions) =>
    app.inject({
      ...options,
      headers: { authorization: `Bearer ${app.fog.adminToken}`, ...options.headers },
    });
  return { app, data, clock, admin, close };
};

export interface TestAgent {
  hostId: string;
  session: string;
  call(options: InjectOptions): Promise<LightMyRequestResponse>;
  post(path: string, payload?: object): Promise<LightMyRequestResponse>;
}

let lastMac = 0;
export const newMac = (): string => {
  lastMac += 1;
  return `02:00:00:00:${(lastMac >> 8).toString(16).padStart(2, '0')}:${(lastMac & 255).toString(16).padStart(2, '0')}`;
};

export const addHost = async (server: TestServer, name: string, mac = newMac()) => {
  const answer = await server.admin({ method: 'POST', url: '/api/hosts', payload: { name, macs: [mac] } });
  return { ...(answer.json() as { id: string; name: string }), mac };
};

export const addTask = async (server: TestServer, host: string, type: string, params: object = {}) => {
  const answer = await server.admin({ method: 'POST', url: '/api/tasks', payload: { host, type, params } });
  if (answer.statusCode !== 201) throw new Error(answer.body);
  return answer.json() as { id: string; params: Record<string, unknown> };
};

export const showTask = async (server: TestServer, id: string) =>
  (await server.admin({ url: `/api/tasks/${id}` })).json() as Record<string, unknown> & { state: string };

export const checkInBody = (token: string, mac: string) => ({
  token,
  identity: { macs: [mac], firmware: 'uefi', secureBoot: 'off', manufacturer: 'ACME', product: 'Box' },
  agent: { version: '1', kernel: '6.12' },
  bootSeconds: 3.5,
});

/** A boot token for a machine that has a task. */
export const bootToken = async (server: TestServer, mac: string): Promise<string> => {
  const decision = await decideBoot(server.app.fog, { mac });
  if (decision.kind !== 'agent') throw new Error('no task for this machine');
  return decision.token;
};

/** Boot and check in as the machine with this MAC. */
export const bootAgent = async (server: TestServer, mac: string): Promise<TestAgent> => {
  const token = await bootToken(server, mac);
  const answer = await server.app.inject({
    method: 'POST',
    url: '/agent/v1/check-in',
    payload: checkInBody(token, mac),
  });
  if (answer.statusCode !== 200) throw new Error(answer.body);
  const { session, host } = answer.json() as { session: string; host: { id: string } };
  const call = (options: InjectOptions) =>
    server.app.inject({ ...options, headers: { authorization: `Bearer ${session}`, ...options.headers } });
  return {
    hostId: host.id,
    session,
    call,
    post: (path, payload) =>
      call({ method: 'POST', url: `/agent/v1/${path}`, ...(payload ? { payload } : {}) }),
  };
};

export const progressOf = (attempt: number, extra: object = {}) => ({
  attempt,
  step: 'transfer',
  done: 10,
  total: 100,
  rate: 5,
  etaSeconds: 18,
  stalledSeconds: 0,
  ...extra,
});

export const resultOf = (attempt: number, extra: object = {}) => ({
  attempt,
  outcome: 'succeeded',
  error: null,
  evidence: [{ what: 'bytes', proof: 'read back' }],
  warnings: [],
  summary: 'done',
  stats: null,
  image: null,
  disk: null,
  inventory: null,
  endedAt: '2026-01-02T03:04:05Z',
  ...extra,
});

/** bytes of every disk in a test's report */
export const WIPED_SIZE = 1_000_000_000;

/** A disk as a machine reports it that has overwritten and read back all of it. */
export const wipedDisk = (more: Partial<WipedDisk> = {}): WipedDisk => ({
  facts: {
    ...{ name: 'sda', model: 'Disk <b>', serial: 'S1', size: WIPED_SIZE, logicalSectorSize: 512 },
    ...{ physicalSectorSize: 4096, rotational: false, removable: false, readOnly: false, transport: 'sata' },
  },
  ...{ status: 'cleared-verified', reason: null, error: null, hidden: null, health: null, purge: null },
  passes: [
    { number: 1, pattern: 'random', bytes: WIPED_SIZE, seconds: 3, missed: { sectors: 0, ranges: [] } },
  ],
  verification: {
    ...{ method: 'full', places: 1, bytes: WIPED_SIZE, key: 'ab'.repeat(32) },
    wrong: { sectors: 0, ranges: [] },
  },
  startedAt: '2026-01-02T03:00:00Z',
  endedAt: '2026-01-02T03:04:00Z',
  ...more,
});

/** What a wipe's result has besides. */
export const wipeOf = (...disks: WipedDisk[]) => ({
  wipe: { agent: { version: '1', kernel: '6.12' }, tools: { hdparm: '9.65' }, disks },
});

export const failureOf = (attempt: number, code: string, details: object = {}) =>
  resultOf(attempt, {
    outcome: 'failed',
    evidence: [],
    error: { code, message: `Cannot go on: ${code}`, details, retryable: false },
  });

export const CHUNK = 65_536;

export interface TestImage {
  chunks: StoredChunk[];
  /** the same chunk may stand in the index several times */
  ids: string[];
  index: Uint8Array;
}

/** A partition of `count` random chunks and one of zeros that occurs twice. */
export const makeImage = (count: number): TestImage => {
  const plain = [...Array.from({ length: count }, () => randomBytes(CHUNK)), Buffer.alloc(CHUNK)];
  const chunks = plain.map((bytes) => {
    const frame = Buffer.alloc(frameLimit(CHUNK));
    return { id: chunkId(bytes), frame: frame.subarray(0, compressFrame(bytes, frame, 3)) };
  });
  const ids = [...chunks.map(({ id }) => id), chunks.at(-1)?.id ?? ''];
  return { chunks, ids, index: encodeCaibx({ chunkSize: CHUNK, size: CHUNK * ids.length, ids }) };
};

export const manifestOf = (image: string, version: number, content: TestImage, map: Buffer): Manifest => ({
  format: 1,
  image,
  version,
  derivedFrom: null,
  createdAt: '2026-01-02T03:04:05Z',
  firmware: 'uefi',
  chunkSize: CHUNK,
  disks: [
    {
      name: 'd1',
      size: 10 * 1024 * 1024,
      logicalSectorSize: 512,
      model: 'Disk',
      serial: 'S1',
      table: 'gpt',
      tableId: '11111111-1111-1111-1111-111111111111',
      bootArea: null,
      extended: null,
      partitions: [
        {
          name: 'p1',
          number: 1,
          start: 1024 * 1024,
          size: CHUNK * content.ids.length,
          type: '0fc63daf-8483-4772-8e79-3d69d8477de4',
          uuid: '22222222-2222-2222-2222-222222222222',
          label: '',
          attributes: '',
          role: 'os',
          filesystem: null,
          method: 'raw',
          reason: '',
          index: {
            name: 'p1.caibx',
            size: content.index.length,
            sha256: sha256(content.index),
            chunks: content.ids.length,
          },
          map: { name: 'p1.map', size: map.length, sha256: sha256(map) },
          bootRecord: null,
          contains: [],
          decryptedFrom: null,
          damaged: [],
        },
      ],
    },
  ],
  os: { name: 'Debian <b>', version: '13' },
  tools: {},
});

export const sha256 = (bytes: Uint8Array | string): string =>
  createHash('sha256').update(bytes).digest('hex');

export const tarOf = (chunks: readonly StoredChunk[]): Promise<Buffer> => buffer(packStream(chunks));

export const octets = { 'content-type': 'application/octet-stream' };

export interface CaptureOptions {
  /** stop before publishing */
  publish?: boolean;
}

/** Play a whole capture of `content` by the machine with this MAC. */
export const capture = async (
  server: TestServer,
  mac: string,
  image: string,
  content: TestImage,
  options: CaptureOptions = {},
) => {
  const task = await addTask(server, mac, 'capture', { image });
  const agent = await bootAgent(server, mac);
  const next = (await agent.post('next')).json() as { task: { id: string; attempt: number } };
  const { attempt } = next.task;
  const opened = await agent.post('uploads', { taskId: task.id, attempt, image, estimateBytes: 1 });
  const { uploadId, version } = opened.json() as { uploadId: string; version: number };
  const asked = await agent.post('chunks/missing', { uploadId, ids: [...new Set(content.ids)] });
  const { missing } = asked.json() as { missing: string[] };
  const wanted = content.chunks.filter(({ id }) => missing.includes(id));
  for (let at = 0; at < wanted.length; at += 64) {
    const sent = await agent.call({
      method: 'POST',
      url: `/agent/v1/packs?upload=${uploadId}`,
      headers: octets,
      payload: await tarOf(wanted.slice(at, at + 64)),
    });
    if (sent.statusCode !== 200) throw new Error(sent.body);
  }
  const map = Buffer.from('map');
  const put = (name: string, payload: Uint8Array) =>
    agent.call({
      method: 'PUT',
      url: `/agent/v1/uploads/${uploadId}/files/${name}`,
      headers: octets,
      payload: Buffer.from(payload),
    });
  await put('p1.caibx', content.index);
  await put('p1.map', map);
  const manifest = manifestOf(image, version, content, map);
  const publish = () => agent.post(`uploads/${uploadId}/publish`, { manifest });
  if (options.publish !== false) {
    const answer = await publish();
    if (answer.statusCode !== 200) throw new Error(answer.body);
    await agent.post(`tasks/${task.id}/result`, resultOf(attempt, { image: { name: image, version } }));
  }
  return { task, agent, attempt, uploadId, version, missing, manifest, map, put, publish };
};

/** Every image with its versions, as an administrator sees them. */
export const listImages = async (server: TestServer) => (await server.admin({ url: '/api/images' })).json();

/** `fog-server image verify lab@1`: what the server finds when it reads every chunk. */
export const verifyVersion = async (server: TestServer, version = 1) =>
  (await server.admin({ method: 'POST', url: `/api/images/lab/versions/${version}/verify` })).json();

/** Where a chunk lies in the server's store. */
export const chunkPath = (server: TestServer, id: string): string => server.app.fog.library.store.path(id);
