import type { AgentStatus } from '../agent.ts';
import type { Busy } from '../protocol/index.ts';

/** The status as text: pure, so that it is tested without a terminal. */
export const linesOf = ({
  host,
  server,
  headline,
  view,
}: AgentStatus): { head: string[]; body: string[] } => ({
  head: ['', ` FOG imaging agent   machine ${host}   server ${server}`, ''],
  body: view === null ? [headline, ''] : [headline, describe(view)],
});

/** `[#####.....]  42 %`, or nothing where the total is not known. */
export const barOf = (view: AgentStatus['view'], width: number): string => {
  if (!view?.total) return '';
  const share = Math.min(1, view.done / view.total);
  const inner = width - 9;
  const full = Math.floor(share * inner);
  return `[${'#'.repeat(full)}${'.'.repeat(inner - full)}] ${String(Math.floor(share * 100)).padStart(3)} %`;
};

const describe = (view: NonNullable<AgentStatus['view']>): string => {
  const parts = [`step ${view.step}`];
  if (view.message) parts.push(view.message);
  if (view.total) parts.push(`${size(view.done)} of ${size(view.total)}`, `${size(view.rate)}/s`);
  if (view.busy && view.bottleneck) parts.push(busiest(view.busy, view.bottleneck));
  if (view.etaSeconds !== null && view.total) parts.push(`${duration(view.etaSeconds)} left`);
  if (view.stalledSeconds > 10 && view.total)
    parts.push(`nothing moved for ${duration(view.stalledSeconds)}`);
  return parts.join(', ');
};

/** `slowest: write 82 %`: the stage to look at if this is too slow. */
export const busiest = (busy: Busy, bottleneck: string): string => {
  const share = bottleneck in busy ? busy[bottleneck as keyof Busy] : 0;
  return `slowest: ${bottleneck} ${Math.round(share * 100)} %`;
};

export const size = (bytes: number): string => {
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
};

export const duration = (seconds: number): string => {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  return minutes < 60
    ? `${minutes} min ${whole % 60} s`
    : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
};
