import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

/*
 * What a network card's boot ROM says, for real, from inside a namespace: run as a program with one
 * argument of JSON, prints the answers as JSON. RFC 2131 (DHCP), 4578 (PXE's options), 1350 (TFTP).
 */

export type Probe =
  | {
      kind: 'discover';
      architecture: number;
      vendor: 'PXEClient' | 'HTTPClient';
      userClass?: string;
      /** stop after so many answers, or after waitMs */
      answers: number;
      waitMs: number;
    }
  /** the second question of proxyDHCP, to the boot server's port 4011 */
  | { kind: 'boot-server'; architecture: number; server: string; own: string }
  | { kind: 'tftp'; server: string; name: string };

export interface Offer {
  from: string;
  /** address offered, 0.0.0.0 from a proxy */
  address: string;
  nextServer: string;
  /** of the header, or of option 67 */
  file: string;
  vendor: string;
}

const MAC = Buffer.from('525400aabb99', 'hex');

const main = async (probe: Probe): Promise<unknown> => {
  if (probe.kind === 'tftp') return (await tftp(probe.server, probe.name)).toString('base64');
  const socket = createSocket('udp4');
  socket.bind(68, '0.0.0.0');
  await once(socket, 'listening');
  socket.setBroadcast(true);
  try {
    return probe.kind === 'discover'
      ? await ask(socket, dhcp(1, probe, '0.0.0.0'), 67, '255.255.255.255', probe)
      : await ask(socket, dhcp(3, { ...probe, vendor: 'PXEClient' }, probe.own), 4011, probe.server, {
          answers: 1,
          waitMs: 5000,
        });
  } finally {
    socket.close();
  }
};

const ask = async (
  socket: Socket,
  packet: Buffer,
  port: number,
  to: string,
  { answers, waitMs }: { answers: number; waitMs: number },
): Promise<Offer[]> => {
  const offers: Offer[] = [];
  socket.on('message', (answer, { address }) => {
    if (answer[0] === 2 && answer.readUInt32BE(4) === packet.readUInt32BE(4))
      offers.push(parse(answer, address));
  });
  socket.send(packet, port, to);
  const deadline = Date.now() + waitMs;
  while (offers.length < answers && Date.now() < deadline) await sleep(20);
  return offers;
};

const dhcp = (
  type: number,
  { architecture, vendor, userClass }: { architecture: number; vendor: string; userClass?: string },
  own: string,
): Buffer => {
  const header = Buffer.alloc(240);
  header.set([1, 1, 6, 0]);
  header.writeUInt32BE(0x0f060001 + type, 4);
  // answers by broadcast: this address is not configured
  header.writeUInt16BE(0x8000, 10);
  header.set(own.split('.').map(Number), 12);
  MAC.copy(header, 28);
  header.writeUInt32BE(0x63825363, 236);
  const options = [
    option(53, Buffer.from([type])),
    option(57, Buffer.from([5, 0xc0])),
    option(55, Buffer.from([1, 3, 13, 43, 60, 66, 67])),
    option(60, Buffer.from(`${vendor}:Arch:${String(architecture).padStart(5, '0')}:UNDI:003000`)),
    option(93, Buffer.from([architecture >> 8, architecture & 255])),
    option(94, Buffer.from([1, 3, 0])),
    option(97, Buffer.alloc(17)),
    ...(userClass === undefined ? [] : [option(77, Buffer.from(userClass))]),
    Buffer.from([255]),
  ];
  return Buffer.concat([header, ...options, Buffer.alloc(64)]);
};

const option = (code: number, value: Buffer): Buffer =>
  Buffer.concat([Buffer.from([code, value.length]), value]);

const parse = (answer: Buffer, from: string): Offer => {
  const options = new Map<number, Buffer>();
  for (let at = 240; at < answer.length && answer[at] !== 255; ) {
    const length = answer[at + 1] ?? 0;
    if (answer[at] === 0) at += 1;
    else {
      options.set(answer[at] as number, answer.subarray(at + 2, at + 2 + length));
      at += 2 + length;
    }
  }
  const text = (bytes: Buffer | undefined): string => bytes?.toString('latin1').replace(/\0.*$/s, '') ?? '';
  return {
    from,
    address: [...answer.subarray(16, 20)].join('.'),
    nextServer: [...answer.subarray(20, 24)].join('.'),
    file: text(answer.subarray(108, 236)) || text(options.get(67)),
    vendor: text(options.get(60)),
  };
};

const tftp = async (server: string, name: string): Promise<Buffer> => {
  const socket = createSocket('udp4');
  socket.send(Buffer.from(`\0\x01${name}\0octet\0`, 'latin1'), 69, server);
  const blocks: Buffer[] = [];
  try {
    for (;;) {
      const [message, { port }] = (await once(socket, 'message', { signal: AbortSignal.timeout(5000) })) as [
        Buffer,
        { port: number },
      ];
      if (message.readUInt16BE(0) === 5) throw new Error(`TFTP: ${message.subarray(4).toString('latin1')}`);
      blocks.push(message.subarray(4));
      socket.send(Buffer.concat([Buffer.from([0, 4]), message.subarray(2, 4)]), port, server);
      if (message.length < 516) return Buffer.concat(blocks);
    }
  } finally {
    // the last acknowledgement has left by then
    await sleep(50);
    socket.close();
  }
};

if (import.meta.main) console.log(JSON.stringify(await main(JSON.parse(process.argv[2] ?? '') as Probe)));
