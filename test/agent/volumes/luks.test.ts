import test from 'ava';
import { judgeLuks2, parseCryptTable } from '../../../agent/volumes/luks.ts';

const segment = {
  type: 'crypt',
  offset: '16777216',
  size: 'dynamic',
  iv_tweak: '0',
  encryption: 'aes-xts-plain64',
  sector_size: 512,
};
const metadata = (segments: object[], config: object = {}): string =>
  JSON.stringify({
    keyslots: {},
    tokens: {},
    segments: { ...segments },
    digests: {},
    config: { json_size: '12288', ...config },
  });

test('LUKS 2: one plain segment is what can be looked into; all else is named', (t) => {
  t.is(judgeLuks2(metadata([segment])), null);
  t.is(judgeLuks2(metadata([segment, segment])), 'it has 2 segments');
  t.is(judgeLuks2(metadata([{ ...segment, type: 'linear' }])), 'its segment is of type linear');
  t.is(
    judgeLuks2(metadata([{ ...segment, integrity: { type: 'hmac(sha256)' } }])),
    'it is protected by integrity tags',
  );
  const reencrypting = { requirements: { mandatory: ['online-reencrypt-v2'] } };
  t.is(judgeLuks2(metadata([segment], reencrypting)), 'it is being encrypted anew');
  t.is(judgeLuks2(metadata([segment], { requirements: { mandatory: ['opal'] } })), 'it needs opal');
  for (const hostile of ['', '[]', '{"segments":{"0":7},"config":{}}', '{"segments":{}}']) {
    t.throws(() => judgeLuks2(hostile), { code: 'TOOL_FAILED' }, hostile);
  }
});

test('the mapping says where the ciphertext begins, LUKS 1 and 2', (t) => {
  // dmsetup table of cryptsetup 2.6.1 and 2.7.5
  t.deepEqual(
    parseCryptTable('0 163840 crypt aes-xts-plain64 :64:logon:cryptsetup:9a2f-d0 0 254:16 32768\n'),
    {
      size: 163840 * 512,
      dataOffset: 32768 * 512,
      sectorSize: 512,
    },
  );
  t.deepEqual(
    parseCryptTable(
      `0 159744 crypt aes-xts-plain64 ${'0'.repeat(64)} 0 254:32 4096 2 allow_discards sector_size:4096\n`,
    ),
    { size: 159744 * 512, dataOffset: 4096 * 512, sectorSize: 4096 },
  );
  for (const other of [
    '',
    '0 8 linear 254:0 0',
    '0 8 crypt aes 00 0 254:0 8 1 integrity:28:aead\n',
    '0 8 crypt aes 00 0 254:0 8\n8 8 crypt aes 00 0 254:0 16\n',
  ]) {
    t.throws(() => parseCryptTable(other), { code: 'TOOL_FAILED' }, other);
  }
});
