import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import fetch from 'node-fetch';
import { run } from '../../../agent/process/run.ts';
import {
  finalStates,
  type Manifest,
  manifestSchema,
  type TaskResult,
  type TaskSecrets,
} from '../../../agent/protocol/index.ts';
import { buildInitramfs } from '../../../initramfs/build.ts';
import { root } from '../../../scripts/lib/root.ts';
import { type Child, startChild } from '../../../scripts/lib/vm/child.ts';
import { type Machine, type MachineOptions, startMachine } from '../../../scripts/lib/vm/machine.ts';
import type { TaskAnswer } from '../../../server-stub/api.ts';
import { type ApiClient, createApiClient } from '../../../server-stub/cli/api-client.ts';

export const MIB = 1024 * 1024;

/** A task server in a process of its own, so that it can be killed, and machines that it starts. */
export interface Bench {
  folder: string;
  data: string;
  api: ApiClient;
  killServer(): Promise<void>;
  startServer(): Promise<void>;
  addHost(name: string, mac: string): Promise<void>;
  addTask(
    host: string,
    type: string,
    params: object,
    after?: 'poweroff' | 'stay',
    secrets?: TaskSecrets,
  ): Promise<string>;
  /**
   * A machine that runs the agent: the boot files that the server gives this MAC, without the minutes of PXE.
   * `debug`: its shell, at which `fog` runs the agent.
   */
  startAgent(
    mac: string,
    options: Pick<MachineOptions, 'disks' | 'firmware' | 'memory'> & { debug?: boolean },
  ): Promise<Machine>;
  task(id: string): Promise<TaskAnswer>;
  manifest(image: string, version: number): Promise<Manifest>;
  /** The ended task with its result. */
  ended(id: string): Promise<{ task: TaskAnswer; result: TaskResult }>;
  /** Resolves with the share of the transfer that the server knows of, once it is at least this. */
  reached(id: string, step: string, share: number): Promise<number>;
}

/** What clean-up is given to: a test, or the `Cleanups` of a file whose tests share a bench. */
export interface Cleanup {
  teardown(work: () => Promise<void>): void;
}

export interface Cleanups extends Cleanup {
  /** for `test.after.always`: last in, first out */
  run(): Promise<void>;
}

export const createCleanups = (): Cleanups => {
  const list: (() => Promise<void>)[] = [];
  return {
    teardown: (work) => void list.unshift(work),
    run: async () => {
      for (const work of list) await work();
    },
  };
};

export const createBench = async (t: Cleanup): Promise<Bench> => {
  await buildInitramfs();
  const folder = await mkdtemp(join(tmpdir(), 'fog-imaging-'));
  const data = join(folder, 'data');
  let server: Child | undefined;
  let port = 0;
  t.teardown(async () => {
    await server?.kill();
    await rm(folder, { recursive: true, force: true });
  });

  const start = async (): Promise<void> => {
    const entry = join(root, 'server-stub/main.ts');
    const args = [
      'serve',
      '--data',
      data,
      '--host',
      '127.0.0.1',
      '--port',
      String(port),
      '--artefacts',
      join(root, 'out/initramfs'),
    ];
    server = startChild(process.execPath, [entry, ...args]);
    for (let tries = 0; tries < 600 && server.isRunning(); tries++) {
      const found = /http:\/\/127\.0\.0\.1:(\d+)/.exec(server.output());
      if (found) {
        port = Number(found[1]);
        return;
      }
      await sleep(50);
    }
    throw new Error(`Cannot start the server: ${server.output()}`);
  };
  await start();
  const api = createApiClient({ server: `http://127.0.0.1:${port}`, data });

  const bench: Bench = {
    folder,
    data,
    api,
    startServer: start,
    killServer: async () => {
      await server?.kill();
    },
    addHost: async (name, mac) => {
      await api.post('/api/hosts', { name, macs: [mac] });
    },
    addTask: async (host, type, params, after = 'poweroff', secrets) =>
      (await api.post<TaskAnswer>('/api/tasks', { host, type, params, after, secrets })).id,
    startAgent: async (mac, { debug = false, ...options }) => {
      const boot = await bootFilesOf(port, mac, folder);
      if (debug) boot.commandLine += ' fog.debug';
      return startMachine({
        memory: 1024,
        kernel: boot,
        nics: [{ mac, network: { kind: 'user' } }],
        ...options,
      });
    },
    task: (id) => api.get<TaskAnswer>(`/api/tasks/${id}`),
    manifest: async (image, version) =>
      manifestSchema.parse(
        JSON.parse(await readFile(join(data, `images/${image}/${version}/manifest.json`), 'utf8')),
      ),
    ended: async (id) => {
      for (;;) {
        const task = await bench.task(id);
        if (finalStates.includes(task.state)) return { task, result: task.result as TaskResult };
        await sleep(250);
      }
    },
    reached: async (id, step, share) => {
      for (;;) {
        const task = await bench.task(id);
        const { progress } = task;
        const part = progress?.step === step && progress.total ? progress.done / progress.total : 0;
        if (part >= share) return part;
        if (finalStates.includes(task.state))
          throw new Error(`the task ended ${task.state} before ${share} of ${step}`);
        await sleep(100);
      }
    },
  };
  return bench;
};

const kill = async (child: ChildProcess): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'exit');
};

/** Kernel, command line and archives as the server's own boot script names them. */
const bootFilesOf = async (port: number, mac: string, folder: string) => {
  // the server writes the address into the script by which it was asked: QEMU's NAT shows it as 10.0.2.2
  const seen = `10.0.2.2:${port}`;
  const get = async (path: string) => {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, { headers: { host: seen } });
    if (!answer.ok) throw new Error(`Cannot get ${path}: ${answer.status}`);
    return Buffer.from(await answer.arrayBuffer());
  };
  const script = (await get(`/boot/ipxe?mac=${mac}`)).toString();
  const words = /^kernel \S+ (.*?) \|\|/m.exec(script)?.[1];
  const site = /(\/boot\/site\/\S+\.cpio)/.exec(script)?.[1];
  if (!words || !site) throw new Error(`Cannot start ${mac} from the network: the server says\n${script}`);
  const initrd = join(folder, `initrd-${mac.replaceAll(':', '')}`);
  await writeFile(
    initrd,
    Buffer.concat([await readFile(join(root, 'out/initramfs/initrd.img')), await get(site)]),
  );
  const commandLine = words.replaceAll(/initrd=\S+ /g, '');
  return { image: join(root, 'out/initramfs/vmlinuz'), initrd, commandLine };
};

export interface ForgetfulDisk {
  /** for QEMU */
  file: string;
  /** power cut: what was not flushed is gone */
  cutPower(): Promise<void>;
  /** an orderly end: everything reaches the file */
  close(): Promise<void>;
}

/**
 * A disk whose cache does not survive: nbdkit's write-back cache in front of the file, killed with the
 * machine. `bytesPerSecond` slows it, so that a transfer lasts long enough to be cut in the middle.
 */
export const attachForgetful = async (
  t: Cleanup,
  file: string,
  bytesPerSecond: number,
): Promise<ForgetfulDisk> => {
  const folder = await mkdtemp(join(tmpdir(), 'fog-nbd-'));
  const socket = join(folder, 'socket');
  const filters = ['--filter=cache', '--filter=rate'];
  const child = spawn(
    'nbdkit',
    [
      '--foreground',
      '--exit-with-parent',
      '-U',
      socket,
      ...filters,
      'file',
      file,
      'cache=writeback',
      `rate=${bytesPerSecond * 8}`,
    ],
    { stdio: 'ignore' },
  );
  t.teardown(async () => {
    await kill(child);
    await rm(folder, { recursive: true, force: true });
  });
  for (let tries = 0; tries < 100 && !(await connects(socket)); tries++) await sleep(50);
  return {
    file: `nbd+unix:///?socket=${socket}`,
    cutPower: () => kill(child),
    close: async () => {
      child.kill('SIGTERM');
      await once(child, 'exit');
    },
  };
};

const connects = (path: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = createConnection(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });

export interface SmallDisk {
  file: string;
  size: number;
  /** partition p1 as it was made, byte for byte */
  partition: { start: number; size: number };
}

/**
 * GPT with one ext4 of random, so incompressible, files: what is sent is what is used. `bytes` of content.
 * The type is "Linux data", so nothing about it depends on firmware.
 */
export const makeSmallDisk = async (folder: string, bytes: number): Promise<SmallDisk> => {
  const tree = join(folder, 'tree');
  const part = join(folder, 'part.img');
  const file = join(folder, 'small.img');
  const partitionSize = Math.ceil((bytes * 1.5) / MIB) * MIB + 32 * MIB;
  const size = partitionSize + 2 * MIB;
  await run('mkdir', ['-p', tree]);
  for (let number = 0; number < 10; number++) {
    await run('sh', [
      '-c',
      'head -c "$1" /dev/urandom > "$2"',
      'sh',
      String(Math.floor(bytes / 10)),
      join(tree, `file${number}`),
    ]);
  }
  await run('truncate', ['-s', String(partitionSize), part]);
  await run('mke2fs', ['-q', '-t', 'ext4', '-d', tree, part]);
  await run('truncate', ['-s', String(size), file]);
  await run('sfdisk', ['--quiet', file], {
    input: `label: gpt\nstart=2048, size=${partitionSize / 512}, type=L, name="small"\n`,
  });
  await run('dd', [`if=${part}`, `of=${file}`, 'bs=1M', 'seek=1', 'conv=sparse,notrunc', 'status=none']);
  return { file, size, partition: { start: MIB, size: partitionSize } };
};

/** All files of the disk's ext4 with their sums, read by debugfs: no mount, no kernel. */
export const filesOf = async (file: string, start: number): Promise<string> => {
  const sums: string[] = [];
  for (let number = 0; number < 10; number++) {
    const { stdout } = await run('sh', [
      '-c',
      'debugfs -R "cat /file$2" "$1" 2>/dev/null | sha256sum',
      'sh',
      `${file}?offset=${start}`,
      String(number),
    ]);
    sums.push(`${number} ${stdout.trim()}`);
  }
  return sums.join('\n');
};
