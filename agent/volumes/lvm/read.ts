import { readAt } from '../../disk/device-io.ts';
import { ImagingError, isImagingError } from '../../errors.ts';
import { parseGroup, type VolumeGroup } from './group.ts';
import {
  checkText,
  LABEL_BYTES,
  type MdaHeader,
  type PvLabel,
  parseLabel,
  parseMdaHeader,
  SECTOR,
  textRanges,
} from './on-disk.ts';

/** A physical volume as it describes itself. */
export interface ReadVolume {
  label: PvLabel;
  /** newest metadata that lies on it; null where it carries none, or belongs to no group */
  group: VolumeGroup | null;
  /** the text that says so; empty where there is none */
  text: string;
  /** metadata areas that carry this newest text; fewer than the label names where one is damaged or set aside */
  headers: MdaHeader[];
}

/**
 * Label and metadata of a physical volume, read from the device without lvm2. Of several copies the newest
 * sound one counts; copies that are all damaged are an error.
 *
 * @throws ImagingError LAYOUT_UNSUPPORTED, DISK_READ_FAILED
 */
export const readVolume = async (device: string, size: number): Promise<ReadVolume> => {
  const label = parseLabel(await readAt(device, 0, Math.min(LABEL_BYTES, size)));
  if (!label) throw new ImagingError('LAYOUT_UNSUPPORTED', `Cannot read ${device}: no LVM label`);
  let newest: ReadText | null = null;
  let headers: MdaHeader[] = [];
  let failure: ImagingError | null = null;
  for (const area of label.metadataAreas) {
    try {
      const found = await readText(device, size, area);
      if (!found) continue;
      if (found.group.seqno > (newest?.group.seqno ?? -1)) [newest, headers] = [found, []];
      if (found.text === newest?.text) headers.push(found.header);
    } catch (error) {
      if (!isImagingError(error)) throw error;
      failure = error;
    }
  }
  if (!newest && failure) throw failure;
  return { label, group: newest?.group ?? null, text: newest?.text ?? '', headers };
};

interface ReadText {
  header: MdaHeader;
  text: string;
  group: VolumeGroup;
}

const readText = async (
  device: string,
  size: number,
  area: { start: number; size: number },
): Promise<ReadText | null> => {
  if (area.size < 2 * SECTOR || area.start + area.size > size) {
    throw new ImagingError('LAYOUT_UNSUPPORTED', `Cannot read ${device}: its metadata lies outside`);
  }
  const header = parseMdaHeader(await readAt(device, area.start, SECTOR), area);
  if (!header.text) return null;
  const pieces: Buffer[] = [];
  for (const range of textRanges(header, header.text)) {
    pieces.push(await readAt(device, range.start, range.size));
  }
  const text = checkText(Buffer.concat(pieces), header.text);
  return { header, text, group: parseGroup(text) };
};
