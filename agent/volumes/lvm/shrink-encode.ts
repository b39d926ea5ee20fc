import { ImagingError } from '../../errors.ts';
import { type ConfigSection, encodeConfig, parseConfig } from './config.ts';
import type { VolumeGroup } from './group.ts';
import { encodeLabel, encodeMetadata, SECTOR } from './on-disk.ts';
import type { KnownMember, MemberPlan } from './shrink-plan.ts';

/**
 * What to write so that a physical volume is the one of the plan to lvm2: label, and in every metadata area the
 * group with its next number. UUIDs, names, flags and whatever else the text says stay.
 *
 * `text`: the group's metadata now; `sector`: that of the label. Pure.
 *
 * @throws ImagingError LAYOUT_UNSUPPORTED: an area has no room for the text
 */
export const encodeMember = (
  { label, group, headers }: KnownMember,
  text: string,
  sector: Buffer,
  plan: MemberPlan,
): { offset: number; bytes: Buffer }[] => {
  const next = encodeConfig(repacked(parseConfig(text), group, plan));
  // 0 stands for "as large as its device"
  const size = label.size === 0 ? 0 : Math.min(label.size, plan.size);
  const { metadataAreas } = plan;
  const areas = metadataAreas.flatMap((area, at) => {
    const header = headers.find(({ start }) => start === label.metadataAreas[at]?.start);
    // where an area moves there is no text yet that a new one must spare
    const stays = header?.start === area.start;
    return encodeMetadata({ ...area, text: stays ? header.text : null }, next);
  });
  return [
    { offset: label.sector * SECTOR, bytes: encodeLabel(sector, { size, metadataAreas }) },
    ...areas.flatMap((area) => area.text),
    ...areas.map(({ header }) => header),
  ];
};

const repacked = (
  root: ConfigSection,
  { name, physical: [volume], extentSize }: VolumeGroup,
  plan: MemberPlan,
): ConfigSection => {
  const group = sectionOf(root, name);
  const { key, start } = volume ?? { key: '', start: 0 };
  group.set('seqno', Number(group.get('seqno')) + 1);
  const pv = sectionOf(sectionOf(group, 'physical_volumes'), key);
  const before = pv.get('dev_size');
  if (typeof before === 'number') pv.set('dev_size', Math.min(before, plan.size / SECTOR));
  pv.set('pe_count', plan.extents);
  for (const { lv, offset, size } of plan.volumes) {
    const section = sectionOf(sectionOf(group, 'logical_volumes'), lv.name);
    for (const entry of section.keys()) if (/^segment\d+$/.test(entry)) section.delete(entry);
    section.set('segment_count', 1);
    const segment: ConfigSection = new Map();
    segment.set('start_extent', 0).set('extent_count', size / extentSize);
    segment.set('type', 'striped').set('stripe_count', 1);
    section.set('segment1', segment.set('stripes', [key, (offset - start) / extentSize]));
  }
  return root;
};

const sectionOf = (section: ConfigSection, name: string): ConfigSection => {
  const found = section.get(name);
  if (found instanceof Map) return found;
  throw new ImagingError('INTERNAL', `Cannot write LVM metadata: ${name} is no section`);
};
