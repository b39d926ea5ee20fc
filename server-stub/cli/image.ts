import { ImagingError } from '../../agent/errors.ts';
import type { ImageAnswer, VerifyAnswer } from '../api.ts';
import type { CommandContext } from './command.ts';
import { bytes, decimal, table, when } from './format.ts';

/** `NAME` or `NAME@N`. @throws ImagingError BAD_REQUEST */
export const parseImage = (text: string): { name: string; version?: number } => {
  const [, name, version] = /^([^@]+)(?:@(\d+))?$/.exec(text) ?? [];
  if (name === undefined) {
    throw new ImagingError('BAD_REQUEST', `Cannot read the image ${text}: use NAME or NAME@VERSION`);
  }
  return version === undefined ? { name } : { name, version: Number(version) };
};

export const listImages = async ({ api, print }: CommandContext): Promise<void> => {
  const images = await api.get<ImageAnswer[]>('/api/images');
  print(images, () =>
    images.length === 0
      ? 'no images'
      : table(
          ['NAME', 'VERSIONS', 'NEWEST', 'CONTENT', 'CREATED', 'STATE'],
          images.map(({ name, versions }) => {
            const newest = versions.find(({ derivedFrom }) => derivedFrom === null);
            const smaller = versions.filter(({ derivedFrom }) => derivedFrom !== null).length;
            const hurt = versions.filter((version) => version.hurt.length > 0);
            return [
              name,
              `${versions.length - smaller}${smaller === 0 ? '' : ` and ${smaller} made smaller`}`,
              newest ? `@${newest.version}` : '-',
              newest ? bytes(newest.usedBytes) : '-',
              when(newest?.createdAt ?? null),
              hurt.length === 0 ? 'sound' : hurt.map((version) => hurtText(name, version)).join('; '),
            ];
          }),
        ),
  );
};

export const showImage = async ({ api, print }: CommandContext, text: string): Promise<void> => {
  const { name, version } = parseImage(text);
  if (version !== undefined) {
    const manifest = await api.get<unknown>(`/api/images/${name}/versions/${version}`);
    print(manifest, () => JSON.stringify(manifest, null, 2));
    return;
  }
  const image = await api.get<ImageAnswer>(`/api/images/${name}`);
  print(image, () =>
    table(
      ['VERSION', 'CREATED', 'DISKS', 'CONTENT', 'CHUNKS', 'STATE'],
      image.versions.map((v) => [
        `${name}@${v.version}`,
        when(v.createdAt),
        bytes(v.diskBytes),
        bytes(v.usedBytes),
        String(v.chunks),
        [
          ...(v.derivedFrom === null
            ? []
            : [`made from ${name}@${v.derivedFrom} for ${decimal(v.diskBytes)} disks`]),
          v.hurt.length === 0 ? 'sound' : hurtText(name, v),
        ].join(', '),
      ]),
    ),
  );
};

/** Read every chunk. Without a number all versions are read. @returns the exit code: 1 if any is hurt */
export const verifyImage = async ({ api, print }: CommandContext, text: string): Promise<number> => {
  const { name, version } = parseImage(text);
  const image = await api.get<ImageAnswer>(`/api/images/${name}`);
  const numbers = version === undefined ? image.versions.map((v) => v.version) : [version];
  const answers: VerifyAnswer[] = [];
  for (const number of numbers) {
    answers.push(await api.post<VerifyAnswer>(`/api/images/${name}/versions/${number}/verify`));
  }
  print(answers, () => answers.map(verdict).join('\n') || `${name} has no versions`);
  return answers.some((answer) => defects(answer) > 0) ? 1 : 0;
};

export const removeImage = async ({ api, print }: CommandContext, text: string): Promise<void> => {
  const { name, version } = parseImage(text);
  await api.delete(`/api/images/${name}${version === undefined ? '' : `/versions/${version}`}`);
  print({ removed: text }, () => `removed ${text}`);
};

const hurtText = (name: string, version: { version: number; hurt: string[] }): string =>
  `version ${version.version} of ${name}: ${hurtParts(version.hurt).join(', ')}`;

/** chunk ids are counted, files of the version are named */
const hurtParts = (hurt: readonly string[]): string[] => {
  const chunks = hurt.filter((name) => /^[0-9a-f]{64}$/.test(name)).length;
  const files = hurt.filter((name) => !/^[0-9a-f]{64}$/.test(name));
  return [...(chunks > 0 ? [count(chunks, 'damaged chunk')] : []), ...files.map((name) => `damaged ${name}`)];
};

const defects = ({ damaged, missing, files }: VerifyAnswer): number =>
  damaged.length + missing.length + files.length;

const verdict = (answer: VerifyAnswer): string => {
  const name = `${answer.image}@${answer.version}`;
  if (defects(answer) === 0) return `${name}: sound, ${count(answer.checked, 'chunk')} read`;
  return [
    `${name}: HURT, ${count(answer.checked, 'chunk')} read`,
    ...answer.damaged.map((id) => `  damaged  ${id}`),
    ...answer.missing.map((id) => `  missing  ${id}`),
    ...answer.files.map((file) => `  file     ${file}`),
  ].join('\n');
};

const count = (number: number, what: string): string => `${number} ${what}${number === 1 ? '' : 's'}`;
