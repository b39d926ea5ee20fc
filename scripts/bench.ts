import { parseArgs } from 'node:util';
import { benchImage } from './lib/bench/image.ts';
import { printRows, type Row, writeReport } from './lib/bench/report.ts';
import { benchWipe } from './lib/bench/wipe.ts';

interface Options {
  /** MiB of file data; of the disk that is wiped */
  size: number;
  runs: number;
}

const benches: Record<string, (options: Options) => Promise<Row[]>> = { image: benchImage, wipe: benchWipe };

const { values, positionals } = parseArgs({
  allowPositionals: true,
  strict: false,
  options: {
    size: { type: 'string', default: '1024' },
    runs: { type: 'string', default: '3' },
    help: { type: 'boolean', default: false },
  },
});
const [size, runs] = [Number(values.size), Number(values.runs)];
const names = positionals.length > 0 ? positionals : Object.keys(benches);
const unknown = names.filter((name) => !(name in benches));
const options = Object.keys(values).filter((name) => !['size', 'runs', 'help'].includes(name));
if (values.help || unknown.length + options.length > 0 || !(size >= 64) || !(runs >= 1)) {
  console.error(
    `Usage: scripts/bench [${Object.keys(benches).join('|')}] [--size MiB, 64 or more] [--runs N]`,
  );
  process.exit(values.help ? 0 : 2);
}
for (const name of names) {
  const bench = benches[name];
  if (!bench) continue;
  const rows = await bench({ size, runs });
  printRows(rows);
  console.log(`written: ${await writeReport(name, rows)}`);
}
