import { buildApp } from '../../../server-stub/app.ts';
import { decideBoot } from '../../../server-stub/decide.ts';

// A task server of its own process for scripts/bench, on the data folder of its argument: one host with a capture
// to do. Says where it is and with which token that host boots.
const data = process.argv[2];
if (!data) throw new Error('Cannot start: no data folder');
const mac = '02:00:00:00:be:01';
const app = await buildApp({ data });
const admin = (url: string, payload: object) =>
  app.inject({ method: 'POST', url, payload, headers: { authorization: `Bearer ${app.fog.adminToken}` } });
const host = await admin('/api/hosts', { name: 'bench', macs: [mac] });
const task = await admin('/api/tasks', { host: 'bench', type: 'capture', params: { image: 'bench' } });
if (host.statusCode !== 201 || task.statusCode !== 201) throw new Error(`${host.body} ${task.body}`);
const decision = await decideBoot(app.fog, { mac });
if (decision.kind !== 'agent') throw new Error(`Cannot boot the bench's machine: ${decision.kind}`);
const server = await app.listen({ host: '127.0.0.1', port: 0 });
console.log(JSON.stringify({ server, token: decision.token, mac }));
process.stdin.on('end', () => process.exit(0)).resume();
