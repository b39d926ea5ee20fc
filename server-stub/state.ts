import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { createEventHub, type EventHub, type ServerEvent } from './events.ts';
import { type Library, openLibrary } from './images/library.ts';
import { rebuildFromManifests } from './images/rebuild.ts';
import { cleanUpDerived } from './images/shrink/derive.ts';
import { createShrinks, type Shrinks } from './images/shrink/jobs.ts';
import { abandonUpload } from './images/uploads.ts';
import { type Board, openBoard } from './queue/board.ts';
import type { TaskRow } from './queue/task-row.ts';
import { defaultSettings, type Settings } from './settings.ts';
import { type Database, openDatabase } from './store/database.ts';
import { createEventLog } from './store/event-log.ts';
import { saveLastSeen } from './store/hosts.ts';
import { openSigningKey, type SigningKey } from './store/keys.ts';
import { newToken, secretFile } from './store/secrets.ts';

/** Where everything lies: one folder that can be backed up, moved and deleted as one. */
export interface DataPaths {
  root: string;
  chunks: string;
  images: string;
  uploads: string;
}

/** What the routes work with. */
export interface State {
  paths: DataPaths;
  settings: Settings;
  db: Database;
  hub: EventHub;
  board: Board;
  library: Library;
  /** smaller versions of images, made one at a time */
  shrinks: Shrinks;
  key: SigningKey;
  adminToken: string;
  registerUnknown: boolean;
  now: () => number;
  /** tell the viewers, and keep the event */
  announce(event: ServerEvent): void;
  /** write the events that have not been written yet */
  flushEvents(): Promise<void>;
  /** a machine was heard of */
  seen(hostId: string): void;
  close(): Promise<void>;
}

export interface StateOptions {
  data: string;
  settings?: Partial<Settings>;
  registerUnknown?: boolean;
  now?: () => number;
  onError?: (error: unknown) => void;
}

/** Open the data folder: database to its newest schema, keys, queue, timers. */
export const openState = async (options: StateOptions): Promise<State> => {
  const { now = Date.now, registerUnknown = false, onError = console.error } = options;
  const settings = { ...defaultSettings, ...options.settings };
  const paths = dataPaths(options.data);
  const adminToken = secretFile(join(paths.root, 'admin-token'), () => `${newToken()}\n`).trim();
  const key = openSigningKey(paths.root);
  const db = await openDatabase(join(paths.root, 'fog.sqlite'));
  const hub = createEventHub();
  const events = createEventLog(db);
  const announce = (event: ServerEvent): void => {
    events.add(event, new Date(now()));
    hub.publish(event);
  };
  const library = openLibrary(paths);
  const ended: { hook?: (row: TaskRow) => Promise<void> } = {};
  const board = await openBoard({
    db,
    hub,
    announce,
    settings,
    now,
    onEnded: async (row) => ended.hook?.(row),
  });
  const lastSeen = new Map<string, number>();
  const saveSeen = async (): Promise<void> => {
    const seen = new Map(lastSeen);
    lastSeen.clear();
    await saveLastSeen(db, seen);
  };
  const timers = [
    every(settings.sweepMs, () => board.sweep(), onError),
    every(settings.sweepMs, events.flush, onError),
    every(settings.saveMs, saveSeen, onError),
  ];
  const state: State = {
    paths,
    settings,
    db,
    hub,
    board,
    library,
    get shrinks() {
      return shrinks;
    },
    key,
    adminToken,
    registerUnknown,
    now,
    announce,
    flushEvents: events.flush,
    seen: (hostId) => lastSeen.set(hostId, now()),
    close: async () => {
      await Promise.all(timers.map((stop) => stop()));
      await shrinks.close();
      await board.close();
      await saveSeen();
      await events.flush();
      await library.close();
      await db.destroy();
    },
  };
  const shrinks = createShrinks(state, onError);
  ended.hook = (row) => abandonUpload(state, row.id);
  for (const { folder, error } of await rebuildFromManifests(state)) {
    onError(new Error(`Cannot serve the version in ${folder}`, { cause: error }));
  }
  await cleanUpDerived(state);
  return state;
};

const dataPaths = (root: string): DataPaths => {
  const paths = {
    root,
    chunks: join(root, 'chunks'),
    images: join(root, 'images'),
    uploads: join(root, 'uploads'),
  };
  mkdirSync(root, { recursive: true, mode: 0o750 });
  for (const folder of [paths.chunks, paths.images, paths.uploads]) mkdirSync(folder, { recursive: true });
  return paths;
};

/** Repeat a job, never two at a time. @returns stops it and waits for the one under way */
const every = (
  ms: number,
  job: () => Promise<void>,
  onError: (error: unknown) => void,
): (() => Promise<void>) => {
  let running: Promise<void> = Promise.resolve();
  let busy = false;
  const timer = setInterval(() => {
    if (busy) return;
    busy = true;
    running = job()
      .catch(onError)
      .finally(() => {
        busy = false;
      });
  }, ms);
  return () => {
    clearInterval(timer);
    return running;
  };
};
