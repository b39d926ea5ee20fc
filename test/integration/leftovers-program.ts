// Makes what a capture makes to look into a disk, says so, and waits to be killed: `leftovers-program.ts DEVICE`.
import { claimDisk } from '../../agent/disk/claim.ts';
import { setUpLoop } from '../../agent/disk/loop-nodes.ts';
import { mountReadOnly } from '../../agent/disk/mount.ts';
import { ownFolder } from '../../agent/process/owner.ts';
import { run } from '../../agent/process/run.ts';
import { diskOf } from './loop-device.ts';

const [device = ''] = process.argv.slice(2);
await claimDisk(await diskOf(device));
const node = await setUpLoop(device, { writable: false });
await mountReadOnly(node, 'ext4');
await ownFolder('partclone');
const tool = run('sh', ['-c', 'exec sleep 300 < "$1"', 'sh', node], { timeoutMs: 0 });
console.log(node);
await tool;
