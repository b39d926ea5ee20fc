import { assertClaim, type DiskClaim } from '../../disk/claim.ts';
import { flushDevice } from '../../disk/device-io.ts';
import type { Disk } from '../../disk/disk.ts';
import { ImagingError, toImagingError } from '../../errors.ts';
import type { PurgeAttempt, PurgeReport } from '../../protocol/index.ts';
import type { HiddenAreas } from '../hidden.ts';
import { offerAta } from './ata.ts';
import { type Known, plantMarkers, survivors } from './markers.ts';
import { noOffer, type PurgeMethod, type PurgeOffer, type PurgeTools } from './method.ts';
import { offerNvme } from './nvme.ts';
import { offerScsi } from './scsi.ts';

export interface Purged {
  report: PurgeReport;
  /** null where a method worked, by the drive's word and by what lies on the disk */
  error: ImagingError | null;
}

/**
 * Have the drive erase itself by the best way it offers, and see on the disk that it did: markers and content that were there before are
 * gone. A way that fails is followed by the next one; there is no way behind the last.
 * Once begun it cannot be stopped: the drive goes on through a restart.
 *
 * `error`: PURGE_IMPOSSIBLE, DISK_FROZEN, DISK_LOCKED (nothing was begun); PURGE_FAILED; DISK_READ_FAILED, DISK_WRITE_FAILED
 */
export const purgeDisk = async (
  claim: DiskClaim,
  hidden: HiddenAreas,
  tools: PurgeTools,
): Promise<Purged> => {
  assertClaim(claim);
  const { path, disk } = claim;
  const report: PurgeReport = { method: null, level: 'none', attempts: [], reasons: [], check: null };
  try {
    const offer = hidden.hpa.state === 'present' ? hiddenOffer(path, hidden) : await offerOf(disk, tools);
    report.reasons.push(...offer.reasons);
    if (offer.methods.length === 0) {
      throw new ImagingError(offer.code, `Cannot purge ${path}: ${offer.reasons.join('; ')}`, {
        details: { path },
      });
    }
    await offer.methods[0]?.settle();
    const known = await plantMarkers(path, disk.size);
    for (const method of offer.methods) {
      const attempt = await attemptOf(method);
      const survived = attempt.outcome === 'done' ? await readAgain(path, disk.size, known) : null;
      if (survived !== null) {
        const bytes = known.places.reduce((sum, place) => sum + place.bytes.length, 0);
        report.check = { places: known.places.length, bytes, survived };
      }
      if (survived !== null && survived > 0) {
        Object.assign(attempt, {
          outcome: 'failed',
          error: `${survived} of ${known.places.length} places still hold what they held`,
        });
      }
      report.attempts.push(attempt);
      tools.log(`${path}: ${method.name} ${attempt.outcome}: ${attempt.error ?? attempt.after}`);
      if (attempt.outcome === 'done')
        return { report: { ...report, method: method.name, level: method.level }, error: null };
    }
    const tried = report.attempts.map(({ method, error }) => `${method}: ${error}`);
    throw new ImagingError('PURGE_FAILED', `Cannot purge ${path}: ${tried.join('; ')}`, {
      details: { path },
    });
  } catch (error) {
    return { report, error: toImagingError(error) };
  }
};

const offerOf = async (disk: Disk, tools: PurgeTools): Promise<PurgeOffer> => {
  switch (disk.transport) {
    case 'nvme':
      return offerNvme(disk, tools);
    case 'sata':
    case 'ata':
      return offerAta(disk, tools);
    case 'usb':
      return noOffer('behind USB: its bridge does not pass the commands on');
    case 'sas':
    case 'spi':
    case 'fc':
      return offerScsi(disk, tools);
    default:
      return noOffer(`a disk of this kind (${disk.transport ?? 'virtual'}) has no erasure of its own`);
  }
};

/** Sectors behind a host protected area may be beyond what the drive erases. */
const hiddenOffer = (path: string, { hpa }: HiddenAreas): PurgeOffer =>
  noOffer(
    `it hides sectors (${hpa.detail}): remove its host protected area first (hdparm -N p<sectors> ${path})`,
  );

const attemptOf = async (method: PurgeMethod): Promise<PurgeAttempt> => {
  const started = performance.now();
  const before = await wordsOf(method);
  let error: string | null = null;
  try {
    await method.erase();
  } catch (thrown) {
    error = toImagingError(thrown).message.slice(0, 1000);
  }
  return {
    method: method.name,
    outcome: error === null ? 'done' : 'failed',
    before,
    after: await wordsOf(method),
    error,
    seconds: (performance.now() - started) / 1000,
  };
};

/** A status that cannot be read is what the report is to say. */
const wordsOf = async (method: PurgeMethod): Promise<string> => {
  try {
    return (await method.status()).slice(0, 2000);
  } catch (error) {
    return `no status: ${toImagingError(error).message}`.slice(0, 2000);
  }
};

const readAgain = async (path: string, size: number, known: Known): Promise<number> => {
  await flushDevice(path);
  return survivors(path, size, known);
};
