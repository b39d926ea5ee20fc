import test from 'ava';
import { renameInHosts } from '../../../agent/os/linux-identity.ts';
import { parseOsRelease, windowsOf } from '../../../agent/os/os-facts.ts';
import { relocateReAgent } from '../../../agent/os/windows-recovery.ts';

test('/etc/hosts: the old name on loopback lines only', (t) => {
  const text = [
    '127.0.0.1\tlocalhost old-db',
    '127.0.1.1\told.lab.example\told # old stays here',
    '::1 localhost OLD',
    '# 127.0.1.1 old',
    '10.0.0.5 old old-server',
    '',
  ].join('\n');
  t.is(
    renameInHosts(text, 'old', 'new'),
    [
      '127.0.0.1\tlocalhost old-db',
      '127.0.1.1\tnew.lab.example\tnew # old stays here',
      '::1 localhost new',
      '# 127.0.1.1 old',
      '10.0.0.5 old old-server',
      '',
    ].join('\n'),
  );
  t.is(renameInHosts('127.0.1.1 old.a old', 'old.a', 'new.b'), '127.0.1.1 new.b new');
  t.is(renameInHosts('127.0.0.1 localhost', 'localhost', 'new'), '127.0.0.1 localhost');
  t.is(renameInHosts('127.0.1.1 x', '', 'new'), '127.0.1.1 x');
});

test('os-release: double, single and no quotes', (t) => {
  const of = parseOsRelease;
  t.deepEqual(of('NAME="Debian GNU/Linux"\nVERSION_ID="13"\n'), { name: 'Debian GNU/Linux', version: '13' });
  t.deepEqual(of("PRETTY_NAME=x\nNAME='Arch Linux'\n"), { name: 'Arch Linux', version: '' });
  t.deepEqual(of('VERSION_ID=41\nNAME=Fedora\r\n'), { name: 'Fedora', version: '41' });
  t.deepEqual(of('NAME="a \\"b\\" \\$c"\n'), { name: 'a "b" $c', version: '' });
  t.is(of('ID=debian\n'), null);
  t.is(of(`NAME="${'x'.repeat(500)}"`), null);
});

test('Windows is called by its product name, and 11 is not 10', (t) => {
  const facts = { product: 'Windows 10 Pro', edition: 'Professional', build: '19045', release: '22H2' };
  t.deepEqual(windowsOf(facts), { name: 'Windows 10 Pro', version: '22H2 build 19045' });
  t.is(windowsOf({ ...facts, build: '22631' })?.name, 'Windows 11 Pro');
  t.is(
    windowsOf({ ...facts, product: 'Windows Server 2022 Standard', build: '20348' })?.name,
    'Windows Server 2022 Standard',
  );
  t.deepEqual(windowsOf({ product: '', edition: 'Core', build: '', release: '' }), {
    name: 'Windows Core',
    version: '',
  });
  t.is(windowsOf({ product: '', edition: '', build: '1', release: '' }), null);
});

const DISK = '1bbe1186-b3bb-4a08-af22-264b3379d8cd';
const OTHER = '9b8e1186-b3bb-4a08-af22-264b3379d8ce';
const NOWHERE = '00000000-0000-0000-0000-000000000000';
/** as reagentc of Windows 10 leaves it */
const reagent = (offset: number, disk = DISK): string =>
  [
    "<?xml version='1.0' encoding='utf-8'?>",
    '',
    '<WindowsRE version="2.0">',
    '  <WinreBCD id="{d9ebf8fe-279b-11e3-8baa-937d583d467a}"/>',
    `  <WinreLocation path="\\Recovery\\WindowsRE" id="0" offset="${offset}" guid="{${disk}}"/>`,
    `  <ImageLocation path="" id="0" offset="0" guid="{${NOWHERE}}"/>`,
    '  <InstallState state="1"/>',
    '  <OsBuildVersion path="19041.1.amd64fre.vb_release.191206-1406"/>',
    '</WindowsRE>',
    '',
  ].join('\r\n');

test('ReAgent.xml follows its partition, in either encoding', (t) => {
  const moves = [
    { from: 1_048_576, to: 1_048_576 },
    { from: 53_687_091_200, to: 106_837_311_488 },
  ];
  const move = { moves, guids: new Map<string, string>() };
  const fixed = relocateReAgent(Buffer.from(reagent(53_687_091_200)), move);
  t.is(fixed.toString(), reagent(106_837_311_488));
  const utf16 = (text: string): Buffer => Buffer.from(`\ufeff${text}`, 'utf16le');
  t.deepEqual(relocateReAgent(utf16(reagent(53_687_091_200)), move), utf16(reagent(106_837_311_488)));
  t.is(relocateReAgent(Buffer.from(reagent(1_048_576)), move), 'same');
  t.is(relocateReAgent(Buffer.from(reagent(0)), move), 'same');
  t.is(relocateReAgent(Buffer.from(reagent(12_345)), move), 'unknown');
  t.is(relocateReAgent(Buffer.from('no xml at all <WinreLocation'), move), 'same');
});

test('ReAgent.xml follows a fresh disk GUID, also where nothing moved', (t) => {
  const guids = new Map([[DISK, OTHER]]);
  const moves = [{ from: 1_048_576, to: 1_048_576 }];
  const fixed = relocateReAgent(Buffer.from(reagent(1_048_576, DISK.toUpperCase())), { moves, guids });
  t.is(fixed.toString(), reagent(1_048_576, OTHER));
});
