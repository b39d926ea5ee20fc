import { ImagingError } from '../../errors.ts';

/** A value of LVM's configuration language. Floats do not occur in metadata. */
export type ConfigValue = number | string | (number | string)[];
/** Names are somebody else's data: a Map has no `__proto__`. In the order of the text. */
export type ConfigSection = Map<string, ConfigValue | ConfigSection>;

const MAX_DEPTH = 8;
const MAX_NODES = 2_000_000;
/** comments and blanks are passed over; a name may hold what lvm2 allows in names of groups and volumes */
const TOKEN =
  /(?:[\s\0]|#[^\n]*)*(?:(?<name>[A-Za-z0-9_.+-][A-Za-z0-9_.+/-]*)|(?<text>"(?:[^"\\]|\\[\s\S])*")|(?<sign>[={}[\],])|(?<end>$))/y;

/**
 * The text form of volume group metadata (lvm.conf(5) describes the language): `name = value` and
 * `name { … }`.
 *
 * @throws ImagingError LAYOUT_UNSUPPORTED: not such a text
 */
export const parseConfig = (text: string): ConfigSection => {
  const token = new RegExp(TOKEN);
  let nodes = 0;
  const next = (): Token => {
    const at = token.lastIndex;
    const groups = token.exec(text)?.groups;
    if (!groups) throw malformed(`an unexpected character at ${at}`);
    if (groups['name'] !== undefined) return { kind: 'name', text: groups['name'] };
    if (groups['text'] !== undefined) return { kind: 'text', text: unquote(groups['text']) };
    return { kind: 'sign', text: groups['sign'] ?? '' };
  };
  const expect = (sign: string): void => {
    const { text: found } = next();
    if (found !== sign) throw malformed(`"${sign}" is missing before "${found.slice(0, 40)}"`);
  };
  const scalar = (found: Token): number | string => {
    if (found.kind === 'text') return found.text;
    const number = Number(found.text);
    if (found.kind === 'name' && /^[+-]?\d+$/.test(found.text) && Number.isSafeInteger(number)) return number;
    throw malformed(`"${found.text.slice(0, 40)}" is no value`);
  };
  const value = (): ConfigValue => {
    const first = next();
    if (first.kind !== 'sign' || first.text !== '[') return scalar(first);
    const list: (number | string)[] = [];
    for (let item = next(); ; item = next()) {
      if (item.kind === 'sign' && item.text === ']') return list;
      if (item.kind === 'sign' && item.text === ',') continue;
      if (++nodes > MAX_NODES) throw malformed('it has too many entries');
      list.push(scalar(item));
    }
  };
  const section = (depth: number): ConfigSection => {
    if (depth > MAX_DEPTH) throw malformed('it is nested too deeply');
    const entries: ConfigSection = new Map();
    for (;;) {
      const name = next();
      if (name.kind === 'sign') {
        const closes = depth === 0 ? '' : '}';
        if (name.text === closes) return entries;
        throw malformed(`"${name.text}" where a name should be`);
      }
      if (++nodes > MAX_NODES) throw malformed('it has too many entries');
      if (entries.has(name.text)) throw malformed(`"${name.text.slice(0, 40)}" occurs twice`);
      const place = token.lastIndex;
      if (next().text === '{') entries.set(name.text, section(depth + 1));
      else {
        token.lastIndex = place;
        expect('=');
        entries.set(name.text, value());
      }
    }
  };
  return section(0);
};

interface Token {
  kind: 'name' | 'text' | 'sign';
  text: string;
}

/** The inverse of parseConfig; comments are not kept. */
export const encodeConfig = (section: ConfigSection, indent = ''): string => {
  let text = '';
  for (const [name, entry] of section) {
    if (entry instanceof Map) text += `${indent}${name} {\n${encodeConfig(entry, `${indent}\t`)}${indent}}\n`;
    else if (Array.isArray(entry)) text += `${indent}${name} = [${entry.map(scalarText).join(', ')}]\n`;
    else text += `${indent}${name} = ${scalarText(entry)}\n`;
  }
  return text;
};

const scalarText = (value: number | string): string =>
  typeof value === 'number' ? String(value) : `"${value.replaceAll(/["\\]/g, '\\$&')}"`;

const unquote = (quoted: string): string => quoted.slice(1, -1).replaceAll(/\\([\s\S])/g, '$1');

const malformed = (reason: string): ImagingError =>
  new ImagingError('LAYOUT_UNSUPPORTED', `Cannot read LVM metadata: ${reason}`);
