import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { partcloneMap } from '../../../agent/filesystem/partclone-map.ts';
import { type Captured, captureRange } from '../../../agent/image/capture.ts';
import type { ChunkSink, ChunkSource } from '../../../agent/image/chunk-store.ts';
import { deployRange } from '../../../agent/image/deploy.ts';
import { chunkSizeFor } from '../../../agent/image/grid.ts';
import { openLocalStore } from '../../../agent/image/local-store.ts';
import { createPool } from '../../../agent/image/pool.ts';
import { run } from '../../../agent/process/run.ts';
import { withServer } from './http.ts';
import { attach, detach, editFiles, fillFilesystem, fillNtfs, mounted, sparseFile } from './image-disk.ts';
import { type BenchFilesystem, peerCapture, peerCasync, peerDeploy, timed, timedPeer } from './peer.ts';
import { pairedRow, type Row, soloRow } from './report.ts';

const MIB = 1024 * 1024;
const LEVEL = 3;

interface Options {
  size: number;
  runs: number;
}

interface Bench {
  filesystem: BenchFilesystem;
  folder: string;
  size: number;
  source: string;
  target: string;
}

/**
 * Capture and deploy against FOG's own pipeline (partclone and zstd) and against `casync make`, on loop devices over files
 * in RAM, run by run in turn. `size`: MiB of file data on an ext4 twice as large; then the same for an NTFS of half that,
 * whose rows end in `.ntfs`.
 */
export const benchImage = async ({ size, runs }: Options): Promise<Row[]> => [
  ...(await onDisks('ext4', size, runs, async (bench) => [
    ...(await captureRows(bench, runs)),
    ...(await captureHttpRows(bench, runs)),
    ...(await againRows(bench, size, runs)),
    ...(await deployRows(bench, runs)),
    ...(await deployAgainRows(bench, size, runs)),
  ])),
  ...(
    await onDisks('ntfs', Math.max(64, size >> 1), runs, async (bench) => [
      ...(await captureRows(bench, runs)),
      ...(await deployRows(bench, runs)),
    ])
  ).map((row) => ({ ...row, name: `${row.name}.ntfs` })),
];

const onDisks = async (
  filesystem: BenchFilesystem,
  size: number,
  runs: number,
  rows: (bench: Bench) => Promise<Row[]>,
): Promise<Row[]> => {
  const folder = await mkdtemp('/dev/shm/bench-');
  const devices: string[] = [];
  try {
    const bytes = size * 2 * MIB;
    for (const name of ['source', 'target']) {
      await sparseFile(join(folder, name), bytes);
      devices.push(await attach(join(folder, name)));
    }
    const [source = '', target = ''] = devices;
    console.log(`image: ${size} MiB of files on ${filesystem}, ${runs} runs`);
    if (filesystem === 'ntfs') await fillNtfs(source, folder, size);
    else await fillFilesystem(source, join(folder, 'mount'), size);
    return await rows({ filesystem, folder, size: bytes, source, target });
  } finally {
    for (const device of devices) await detach(device);
    await rm(folder, { recursive: true, force: true });
  }
};

const captureRows = async (bench: Bench, runs: number): Promise<Row[]> => {
  const { filesystem, folder, source } = bench;
  const file = join(folder, 'peer.zst');
  const first: { ours: number; peer: number }[] = [];
  const sizes: { ours: number; peer: number }[] = [];
  for (let turn = 0; turn < runs; turn += 1) {
    await rm(join(folder, 'chunks'), { recursive: true, force: true });
    await cold(source);
    let sent = 0;
    const ours = await timed(async () => {
      sent = (await capture(bench)).stats.bytesSent;
    });
    let stored = 0;
    const peer = await timedPeer(
      () => cold(source),
      async (refresh) => {
        stored = await peerCapture(filesystem, source, file, LEVEL, refresh);
      },
    );
    first.push({ ours, peer });
    sizes.push({ ours: sent, peer: stored });
    console.log(`  capture ${ours.toFixed(2)} s, partclone | zstdmt ${peer.toFixed(2)} s`);
  }

  await cold(source);
  const casync = await peerCasync(source, join(folder, 'casync'), join(folder, 'first.caibx'));
  console.log(`  casync make ${casync.seconds.toFixed(2)} s`);
  return [
    pairedRow('capture.first', 's', first),
    pairedRow(
      'capture.first.casync',
      's',
      first.map(({ ours }) => ({ ours, peer: casync.seconds })),
    ),
    pairedRow('capture.size', 'bytes', sizes),
    pairedRow(
      'capture.size.casync',
      'bytes',
      sizes.map(({ ours }) => ({ ours, peer: casync.bytes })),
    ),
  ];
};

/** The same through the server, which decompresses and checks every chunk on the same cores. */
const captureHttpRows = async (bench: Bench, runs: number): Promise<Row[]> => {
  const { filesystem, folder, source } = bench;
  const file = join(folder, 'peer.zst');
  const pairs: { ours: number; peer: number }[] = [];
  for (let turn = 0; turn < runs; turn += 1) {
    await cold(source);
    const ours = await withServer(folder, (sink) => timed(() => capture(bench, sink)));
    const peer = await timedPeer(
      () => cold(source),
      async (refresh) => void (await peerCapture(filesystem, source, file, LEVEL, refresh)),
    );
    pairs.push({ ours, peer });
    console.log(`  capture over HTTP ${ours.toFixed(2)} s, partclone | zstdmt ${peer.toFixed(2)} s`);
  }
  return [pairedRow('capture.first.http', 's', pairs)];
};

/** After 1 % of the bytes changed; the stores of captureRows are still there. */
const againRows = async (bench: Bench, dataMib: number, runs: number): Promise<Row[]> => {
  const { filesystem, folder, source } = bench;
  const changed = await mounted(source, join(folder, 'mount'), () =>
    editFiles(join(folder, 'mount'), 0.01, dataMib, 0, 2),
  );
  await cold(source);
  // each run needs the store as it was before the change
  await run('cp', ['-a', join(folder, 'chunks'), join(folder, 'chunks-before')]);
  const again: { ours: number; peer: number }[] = [];
  let sentAgain = 0;
  for (let turn = 0; turn < runs; turn += 1) {
    await rm(join(folder, 'chunks'), { recursive: true, force: true });
    await run('cp', ['-a', join(folder, 'chunks-before'), join(folder, 'chunks')]);
    await cold(source);
    const ours = await timed(async () => {
      sentAgain = (await capture(bench)).stats.bytesSent;
    });
    const peer = await timedPeer(
      () => cold(source),
      (refresh) => peerCapture(filesystem, source, join(folder, 'again.zst'), LEVEL, refresh),
    );
    again.push({ ours, peer });
    console.log(`  capture again ${ours.toFixed(2)} s, partclone | zstdmt ${peer.toFixed(2)} s`);
  }
  await cold(source);
  const casync = await peerCasync(source, join(folder, 'casync'), join(folder, 'second.caibx'));
  console.log(`  casync make again ${casync.seconds.toFixed(2)} s`);
  for (const name of ['casync', 'again.zst', 'chunks-before']) {
    await rm(join(folder, name), { recursive: true, force: true });
  }
  return [
    pairedRow('capture.again', 's', again),
    pairedRow(
      'capture.again.casync',
      's',
      again.map(({ ours }) => ({ ours, peer: casync.seconds })),
    ),
    pairedRow('capture.again.bytes', 'of changed', [
      { ours: sentAgain / changed, peer: casync.bytes / changed },
    ]),
  ];
};

const deployRows = async (bench: Bench, runs: number): Promise<Row[]> => {
  const { filesystem, folder, source, target } = bench;
  const file = join(folder, 'peer.zst');
  await cold(source);
  const captured = await capture(bench);
  await peerCapture(filesystem, source, file, LEVEL, 1);
  const blank: { ours: number; peer: number }[] = [];
  for (let turn = 0; turn < runs; turn += 1) {
    await run('blkdiscard', [target]);
    const ours = await timed(() => deploy(bench, captured));
    const peer = await timedPeer(
      () => run('blkdiscard', [target]),
      (refresh) => peerDeploy(file, target, refresh),
    );
    blank.push({ ours, peer });
    console.log(`  deploy ${ours.toFixed(2)} s, zstd | partclone ${peer.toFixed(2)} s`);
  }
  return [pairedRow('deploy.blank', 's', blank)];
};

/** After 5 % of the bytes changed and 300 files were deleted; the archive of deployRows is still there. */
const deployAgainRows = async (bench: Bench, dataMib: number, runs: number): Promise<Row[]> => {
  const { folder, target } = bench;
  const file = join(folder, 'peer.zst');
  const captured = await capture(bench);
  await run('blkdiscard', [target]);
  await deploy(bench, captured);
  await mounted(target, join(folder, 'mount'), () => editFiles(join(folder, 'mount'), 0.05, dataMib, 300, 3));
  await cold(target);
  await copyFile(join(folder, 'target'), join(folder, 'used'));
  const again: { ours: number; peer: number }[] = [];
  let wire = 0;
  for (let turn = 0; turn < runs; turn += 1) {
    await restoreUsed(bench);
    const ours = await timed(async () => {
      wire = (await deploy(bench, captured)).bytesReceived;
    });
    const peer = await timedPeer(
      () => restoreUsed(bench),
      (refresh) => peerDeploy(file, target, refresh),
    );
    again.push({ ours, peer });
    console.log(`  deploy again ${ours.toFixed(2)} s, zstd | partclone ${peer.toFixed(2)} s`);
  }
  const whole = (await deploy(bench, captured, 'none')).bytesReceived;
  return [pairedRow('deploy.again', 's', again), soloRow('deploy.again.bytes', 'of image', [wire / whole])];
};

/** as a task does it: map, threads, chunks, index, everything durable at the end; into a local store by default */
const capture = async (
  { filesystem, folder, size, source }: Bench,
  remote?: ChunkSink,
): Promise<Captured> => {
  const pool = createPool();
  try {
    const { signal } = new AbortController();
    const { extents } = await partcloneMap(
      filesystem === 'ext4' ? 'extfs' : filesystem,
      source,
      size,
      signal,
    );
    const sink = remote ?? openLocalStore(join(folder, 'chunks'), pool, { verify: false });
    return await captureRange({
      device: source,
      start: 0,
      size,
      extents,
      chunkSize: chunkSizeFor(size),
      level: LEVEL,
      sink,
      pool,
    });
  } finally {
    await pool.close();
  }
};

const deploy = async (
  { folder, size, target }: Bench,
  { index, map }: Captured,
  compare: 'sample' | 'none' = 'sample',
): Promise<{ bytesReceived: number }> => {
  const pool = createPool();
  try {
    const source: ChunkSource = openLocalStore(join(folder, 'chunks'), pool);
    const options = { index, map, chunkSize: chunkSizeFor(size), source, pool, compare };
    return (await deployRange({ ...options, device: target, start: 0 })).stats;
  } finally {
    await pool.close();
  }
};

/** the target as a machine that has run this image for a while */
const restoreUsed = async ({ folder, target }: Bench): Promise<void> => {
  await run('cp', ['--no-preserve=all', join(folder, 'used'), join(folder, 'target')]);
  await cold(target);
};

/** no page cache of the loop device: both sides read it anew */
const cold = async (device: string): Promise<void> => {
  await run('blockdev', ['--flushbufs', device]);
};
