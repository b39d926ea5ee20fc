import { createHash } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import PdfDocument from 'pdfkit';
import type { WipedDisk } from '../../agent/protocol/index.ts';
import { bytes, decimal, seconds } from '../cli/format.ts';
import { type CertificateBody, certificateBodySchema, certificateSchema } from './certificate.ts';
import type { Verdict } from './verdict.ts';

type Page = PDFKit.PDFDocument;

const INK = '#1b1f24';
const FAINT = '#5b6470';
const GOOD = '#1a6b37';
const BAD = '#a4161a';
const LABEL_WIDTH = 120;

/**
 * A certificate, or the record of what is not erased, on paper: a rendering of the signed JSON, whose SHA-256 it carries. Only the JSON
 * can be verified. The same text makes the same pages, and each of them says which of the two it belongs to.
 */
export const certificatePdf = async (text: string): Promise<{ erased: boolean; pdf: Buffer }> => {
  const { certificate, signature } = certificateSchema.parse(JSON.parse(text));
  const body = certificateBodySchema.parse(certificate);
  const page = new PdfDocument({
    size: 'A4',
    margin: 50,
    bufferPages: true,
    info: {
      Title: `${body.title} ${body.task.id}`,
      Creator: 'fog-ts',
      CreationDate: new Date(body.issuedAt),
    },
  });
  const whole = buffer(page);
  page.fillColor(INK).font('Helvetica-Bold').fontSize(20).text(body.title);
  page.moveDown(0.4);
  page.fillColor(toneOf(body)).fontSize(12).text(printable(body.conclusion));
  page.moveDown(0.6);
  rows(page, machineRows(body));
  heading(page, 'Disks');
  for (const [at, disk] of body.report.disks.entries()) diskPart(page, disk, body.verdicts[at]);
  heading(page, 'What this says');
  for (const claim of [body.standard, ...body.claims]) paragraph(page, claim);
  heading(page, 'Signature');
  rows(page, [
    ['Key', `Ed25519, ${signature.keyId}`],
    ['Signature', signature.value],
    ['SHA-256 of the JSON', createHash('sha256').update(text).digest('hex')],
    ['To verify', `fog-server certificate verify FILE.json --key ${signature.publicKey}`],
  ]);
  paragraph(page, 'This page is a rendering. What is signed is the JSON file of the same task.');
  page.moveDown(2);
  paragraph(page, 'Date, name and signature: ________________________________________');
  footers(page, body);
  page.end();
  return { erased: body.erased, pdf: await whole };
};

const toneOf = ({ erased }: CertificateBody): string => (erased ? GOOD : BAD);

/** A page that was torn off tells as much as the first one. */
const footers = (page: Page, body: CertificateBody): void => {
  const { start, count } = page.bufferedPageRange();
  for (let number = start; number < start + count; number++) {
    page.switchToPage(number);
    const { margins, height, width } = page.page;
    const kept = margins.bottom;
    // text below the margin would begin a page of its own
    margins.bottom = 0;
    page
      .font('Helvetica-Bold')
      .fontSize(8)
      .fillColor(toneOf(body))
      .text(
        `${body.title}, task ${body.task.id}, page ${number - start + 1} of ${count}`,
        margins.left,
        height - 35,
        { width: width - margins.left - margins.right, lineBreak: false },
      );
    margins.bottom = kept;
  }
};

const machineRows = ({
  task,
  outcome,
  error,
  host,
  machine,
  operator,
  destination,
  issuedAt,
  report,
}: CertificateBody): Row[] => [
  ['Machine', [machine?.manufacturer, machine?.product].filter(Boolean).join(' ') || 'unknown'],
  ['Serial number', machine?.serial ?? 'none'],
  ['System UUID', machine?.uuid ?? 'none'],
  ['Host', `${host.name} (${host.macs.join(', ')})`],
  ['Task', `${task.type}, ${task.id}, attempt ${task.attempt}: ${outcome}`],
  ...(error ? [['Error', `${error.code}: ${error.message}`] as Row] : []),
  ['From, to', `${task.startedAt}, ${task.endedAt}`],
  ['Issued', `${issuedAt} (clock of the server)`],
  ['Operator', operator ?? '-'],
  ['Destination', destination ?? '-'],
  [
    'Software',
    `agent ${report.agent.version}, Linux ${report.agent.kernel}; ${Object.entries(report.tools)
      .map((tool) => tool.join(' '))
      .join(', ')}`,
  ],
];

const diskPart = (
  page: Page,
  disk: WipedDisk,
  said: CertificateBody['verdicts'][number] | undefined,
): void => {
  const { facts, status, purge, passes, verification, hidden, health } = disk;
  const verdict = said?.verdict ?? 'NOT ERASED';
  // a disk's part stays together where it can
  if (page.y > page.page.height - 200) page.addPage();
  page.moveDown(0.5).font('Helvetica-Bold').fontSize(11).fillColor(verdictTones[verdict]);
  page.text(printable(`${verdict}: ${facts.name}, ${serialOf(facts)} (${status})`));
  const last = passes.at(-1);
  const times =
    disk.startedAt && disk.endedAt ? [Date.parse(disk.startedAt), Date.parse(disk.endedAt)] : undefined;
  rows(page, [
    [
      'Medium',
      `${facts.model ?? 'unknown model'}, ${decimal(facts.size)} (${facts.size} bytes), ${facts.rotational ? 'rotating' : 'not rotating'}, ${facts.transport ?? 'virtual'}`,
    ],
    ['WWN, firmware', `${facts.wwn ?? 'none'}, ${facts.firmware ?? 'unknown'}`],
    ...(said?.why ? [['Reason', said.why] as Row] : []),
    ...(purge ? [['Purge', `${purge.method ?? 'none'}; ${purge.level}`] as Row] : []),
    ...(purge?.check
      ? [['Checked', `${purge.check.places} known places, ${purge.check.survived} kept their content`] as Row]
      : []),
    ...(last
      ? [
          [
            'Overwritten',
            `${passes.length} x ${last.pattern}, ${passes.map((pass) => bytes(pass.bytes)).join(', ')}`,
          ] as Row,
        ]
      : []),
    ...(last && last.missed.sectors > 0 ? [['NOT overwritten', missedWords(last.missed)] as Row] : []),
    ...(verification
      ? [
          [
            'Read back',
            `${verification.method === 'full' ? 'all that was written' : `${verification.places} random places`}, ${bytes(verification.bytes)}, ${verification.wrong.sectors} sectors wrong`,
          ] as Row,
        ]
      : []),
    ...(hidden
      ? [
          [
            'Hidden areas',
            `HPA ${hidden.hpa.state} (${hidden.hpa.detail}); DCO ${hidden.dco.state} (${hidden.dco.detail})`,
          ] as Row,
        ]
      : []),
    ...(health
      ? [['SMART', `before: ${healthWords(health.before)}; after: ${healthWords(health.after)}`] as Row]
      : []),
    ...(times
      ? [
          [
            'From, to',
            `${disk.startedAt}, ${disk.endedAt} (${seconds(((times[1] ?? 0) - (times[0] ?? 0)) / 1000)})`,
          ] as Row,
        ]
      : []),
  ]);
};

const verdictTones: Record<Verdict, string> = {
  ERASED: GOOD,
  'TABLES REMOVED, DATA LEFT': BAD,
  'NOT ERASED': BAD,
  'LEFT ALONE': FAINT,
};

const serialOf = ({ serial }: WipedDisk['facts']): string =>
  serial ? `serial ${serial}` : 'no serial number';

/** More of them than a page holds are in the JSON. */
const NAMED_RANGES = 20;
const missedWords = ({ sectors, ranges }: WipedDisk['passes'][number]['missed']): string => {
  const named = ranges.slice(0, NAMED_RANGES).map(({ lba, sectors: count }) => `${lba} (${count})`);
  return `${sectors} sectors; LBA (sectors): ${named.join(', ')}${ranges.length > named.length ? ', and more in the JSON' : ''}`;
};

const healthWords = ({ passed, powerOnHours, defects }: NonNullable<WipedDisk['health']>['before']): string =>
  [
    passed === null ? 'unknown' : passed ? 'passed' : 'FAILED',
    ...(powerOnHours === null ? [] : [`${powerOnHours} h`]),
    ...(defects === null ? [] : [`${defects} defects`]),
  ].join(', ');

type Row = [label: string, value: string];

const rows = (page: Page, list: readonly Row[]): void => {
  const left = page.page.margins.left;
  for (const [label, value] of list) {
    if (page.y > page.page.height - 80) page.addPage();
    const top = page.y;
    page
      .font('Helvetica')
      .fontSize(9)
      .fillColor(FAINT)
      .text(label, left, top, { width: LABEL_WIDTH - 10 });
    page
      .fillColor(INK)
      .text(printable(value), left + LABEL_WIDTH, top, { width: page.page.width - 2 * left - LABEL_WIDTH });
    page.x = left;
  }
};

const heading = (page: Page, text: string): void => {
  if (page.y > page.page.height - 120) page.addPage();
  page.moveDown(0.8).font('Helvetica-Bold').fontSize(13).fillColor(INK).text(text);
  page.moveDown(0.2);
};

const paragraph = (page: Page, text: string): void => {
  page.font('Helvetica').fontSize(9).fillColor(INK).text(printable(text));
};

/** The fonts that every reader has know Latin 1; the JSON has the text as it is. */
const printable = (text: string): string => text.replace(/[^\x20-\x7e\xa0-\xff]/gu, '?');
