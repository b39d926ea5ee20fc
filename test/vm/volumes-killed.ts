// What a capture makes to look into a disk, by a process that is killed: `killed.mjs SNAPSHOT_OF LUKS`, key on
// standard input. Prints `ready` when it all stands.
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { setUpLoop } from '../../agent/disk/loop-nodes.ts';
import { mountReadOnly } from '../../agent/disk/mount.ts';
import { snapshotInMemory } from '../../agent/disk/snapshot.ts';
import { openLuks } from '../../agent/volumes/luks.ts';
import { replayJournal } from '../../agent/volumes/replay.ts';

const [origin = '', encrypted = ''] = process.argv.slice(2);
const { signal } = new AbortController();
const key = await text(process.stdin);

const replayed = await snapshotInMemory(origin, { limit: 32 * 1024 * 1024 });
await replayJournal(replayed.path, 'ext4', signal);
await mountReadOnly(replayed.path, 'ext4');
// LUKS on a snapshot, a volume in it: each stands on the one before
const under = await snapshotInMemory(encrypted, { limit: 32 * 1024 * 1024 });
const clear = await openLuks(under.path, [key], { writable: false, signal });
await mountReadOnly(await setUpLoop(clear.path, { writable: false }), 'ext4');
console.log('ready');
await sleep(600_000);
