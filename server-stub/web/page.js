// The plain results page: lists what the API answers and follows its events. Whatever a machine reported
// reaches the page as text nodes only.

const find = (id) => document.getElementById(id);
const finalStates = ['succeeded', 'failed', 'cancelled', 'lost'];
let events;
let pending;

await start();

async function start() {
  find('sign-in').addEventListener('submit', signIn);
  find('sign-out').addEventListener('click', signOut);
  if (await load()) follow();
}

async function signIn(event) {
  event.preventDefault();
  const answer = await fetch('/api/session', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ token: find('token').value.trim() }),
  });
  find('token').value = '';
  if (!answer.ok) {
    find('refused').textContent = (await answer.json()).error.message;
    find('refused').hidden = false;
    return;
  }
  find('refused').hidden = true;
  if (await load()) follow();
}

async function signOut() {
  events?.close();
  await fetch('/api/session', { method: 'DELETE' });
  show(false);
}

/** Fetch and draw everything. Returns whether this browser is signed in. */
async function load() {
  const answers = await Promise.all(
    ['/api/tasks?open=true&limit=1000', '/api/tasks?limit=100', '/api/images', '/api/hosts'].map((path) =>
      fetch(path),
    ),
  );
  if (answers.some(({ status }) => status === 401)) {
    events?.close();
    show(false);
    return false;
  }
  const [open, tasks, images, hosts] = await Promise.all(answers.map((answer) => answer.json()));
  show(true);
  fill('open', open.reverse().map(openCard), 'No task is waiting.');
  fill('images', images.flatMap(imageRows), 'No image has been captured yet.');
  fill('hosts', hosts.map(hostRow), 'No host is registered yet.');
  fill(
    'ended',
    tasks.filter(({ state }) => finalStates.includes(state)).map(endedCard),
    'No task has ended yet.',
  );
  return true;
}

function show(signedIn) {
  find('sign-in').hidden = signedIn;
  find('page').hidden = !signedIn;
  find('sign-out').hidden = !signedIn;
  find('live').hidden = !signedIn;
}

function follow() {
  events?.close();
  events = new EventSource('/api/events');
  events.addEventListener('open', () => connected(true));
  events.addEventListener('error', () => connected(false));
  for (const kind of ['hello', 'task', 'host', 'image']) events.addEventListener(kind, reloadSoon);
  events.addEventListener('progress', ({ data }) => {
    const { subject, progress } = JSON.parse(data);
    const card = document.querySelector(`[data-task="${CSS.escape(subject)}"] .progress`);
    if (card) card.replaceWith(progressOf(progress));
    else reloadSoon();
  });
}

function connected(yes) {
  find('live').textContent = yes ? 'live' : 'the server does not answer; trying again';
  find('live').classList.toggle('away', !yes);
  // a server that was restarted no longer knows the cookie: then the stream ends for good
  if (!yes && events.readyState === EventSource.CLOSED)
    load().catch(() => setTimeout(() => connected(false), 3000));
}

/** Many events at once become one reload. */
function reloadSoon() {
  if (pending) return;
  pending = setTimeout(() => {
    pending = undefined;
    load().catch(() => connected(false));
  }, 150);
}

function openCard(task) {
  const state = task.place
    ? `waiting, place ${task.place.place} of ${task.place.of}`
    : task.cancel
      ? `${task.state}, to be cancelled`
      : task.state;
  const card = element('article', 'card', [
    heading(task, state, task.state === 'silent' ? 'warn' : ''),
    progressOf(task.state === 'running' ? task.progress : null),
    logLink(task),
  ]);
  card.dataset.task = task.id;
  return card;
}

function progressOf(progress) {
  const box = element('div', 'progress');
  if (!progress) return box;
  const bar = document.createElement('progress');
  bar.setAttribute('aria-label', progress.step);
  if (progress.total) {
    bar.max = progress.total;
    bar.value = progress.done;
  }
  const share = progress.total
    ? `${Math.floor((progress.done / progress.total) * 100)} % of ${bytes(progress.total)}`
    : bytes(progress.done);
  const facts = [progress.step, share, `${bytes(progress.rate)}/s`];
  if (progress.etaSeconds !== null) facts.push(`${seconds(progress.etaSeconds)} left`);
  if (progress.stalledSeconds >= 10) facts.push(`nothing moved for ${seconds(progress.stalledSeconds)}`);
  const busy = progress.busy?.[progress.bottleneck];
  if (busy !== undefined) facts.push(`slowest: ${progress.bottleneck} ${Math.round(busy * 100)} %`);
  if (progress.message) facts.push(progress.message);
  box.append(bar, element('p', 'faint', facts.join(' \u00b7 ')));
  return box;
}

function endedCard(task) {
  const { result } = task;
  const parts = [heading(task, task.state, task.state === 'succeeded' ? 'good' : 'bad')];
  if (result?.error) parts.push(element('p', 'bad', `${result.error.code}: ${result.error.message}`));
  if (task.reason) parts.push(element('p', 'bad', task.reason));
  // a dry run's drawing of the disk needs its columns
  if (result?.summary) parts.push(element(result.summary.includes('\n\n') ? 'pre' : 'p', '', result.summary));
  if (result?.wipe) parts.push(wipedDisks(result.wipe.disks));
  if (result?.wipe) parts.push(certificateLinks(task));
  if (result?.surface) parts.push(...testedDisks(result.surface.disks));
  for (const warning of result?.warnings ?? []) parts.push(element('p', 'warn', warning));
  if (result?.evidence.length) {
    const proofs = result.evidence.map(({ what, proof }) => element('li', '', `${what}: ${proof}`));
    const details = element('details', 'evidence', [
      element('summary', '', `Proved: ${result.evidence.length}`),
      element('ul', '', proofs),
    ]);
    parts.push(details);
  }
  parts.push(logLink(task));
  return element('article', 'card', parts);
}

const erased = ['purged-verified', 'cleared-verified'];
const notErased = ['failed', 'interrupted'];
const stateWords = {
  'signatures-removed': 'signatures-removed: data in between is still there',
  failed: 'NOT ERASED: failed',
  interrupted: 'NOT ERASED: interrupted',
};

function wipedDisks(disks) {
  const rows = disks.map(({ facts, status, reason, purge, passes, verification }) => {
    const tone = erased.includes(status) ? 'good' : notErased.includes(status) ? 'bad' : 'faint';
    const done = [];
    if (purge?.method) done.push(purge.method);
    if (passes.length > 0) done.push(`${passes.length} \u00d7 ${passes.at(-1).pattern}`);
    if (verification) done.push(`${bytes(verification.bytes)} read back`);
    return row([
      facts.serial ?? 'no serial number',
      facts.model ?? facts.name,
      number(bytes(facts.size)),
      element('span', tone, stateWords[status] ?? status),
      [done.join(', '), reason].filter(Boolean).join('; '),
    ]);
  });
  return tableOf(['Serial number', 'Disk', 'Size', 'State', 'How'], rows);
}

function tableOf(titles, rows) {
  const head = element(
    'tr',
    '',
    titles.map((title) => element('th', '', title)),
  );
  const table = element('table', '', [element('thead', '', [head]), element('tbody', '', rows)]);
  return element('div', 'scroll', [table]);
}

const verdictTones = { good: 'good', suspect: 'warn', bad: 'bad' };

function testedDisks(disks) {
  const rows = disks.map(({ facts, status, verdict, reason, reasons, bytes: tested, bad, latency }) =>
    row([
      facts.serial ?? 'no serial number',
      facts.model ?? facts.name,
      number(bytes(facts.size)),
      element('span', verdictTones[verdict] ?? (status === 'failed' ? 'bad' : 'faint'), verdict ?? status),
      number(status === 'skipped' ? '' : `${bytes(tested)} tested, ${bad.sectors} sectors bad`),
      number(latency?.maxMs == null ? '' : `${latency.meanMs.toFixed(1)} / ${latency.maxMs.toFixed(1)} ms`),
      (verdict ? reasons.join('; ') : reason) ?? '',
    ]),
  );
  return [
    tableOf(['Serial number', 'Disk', 'Size', 'Verdict', 'Surface', 'Read: mean / slowest', 'Why'], rows),
    ...disks.filter(({ bad }) => bad.ranges.length > 0).map(badRanges),
    ...disks.filter(({ latency }) => latency).map(latencyMap),
  ];
}

function badRanges({ facts, bad }) {
  const shown = bad.ranges.slice(0, 200);
  const rows = shown.map(({ lba, sectors, start, size }) =>
    row([number(String(lba)), number(String(sectors)), number(String(start)), number(bytes(size))]),
  );
  const hidden = bad.ranges.length - shown.length + bad.more.ranges;
  const parts = [
    element('summary', '', `Bad ranges of ${facts.serial ?? facts.name}: ${shown.length + hidden}`),
    tableOf(['LBA (512 bytes)', 'Sectors', 'First byte', 'Size'], rows),
  ];
  if (hidden > 0) parts.push(element('p', 'faint', `and ${hidden} more`));
  return element('details', '', parts);
}

/** A bar for each part of the disk, its slowest read; on a logarithmic scale from 0.1 ms to 10 s. */
function latencyMap({ facts, latency }) {
  const bars = latency.cells.map(({ maxMs, meanMs }, at) => {
    const bar = element('i', maxMs === null ? 'none' : maxMs > 1000 ? 'slow' : '');
    const share = maxMs === null ? 0 : (Math.log10(Math.max(0.1, maxMs)) + 1) / 5;
    bar.style.height = `${Math.round(Math.min(1, Math.max(0.04, share)) * 100)}%`;
    const what = maxMs === null ? 'not read' : `mean ${meanMs} ms, slowest ${maxMs} ms`;
    bar.title = `from ${bytes(at * latency.cellBytes)}: ${what}`;
    return bar;
  });
  const map = element('div', 'latency', bars);
  map.setAttribute('role', 'img');
  map.setAttribute('aria-label', `${latency.reads} single reads, slowest ${latency.maxMs} ms`);
  const title = `Latency of ${facts.serial ?? facts.name}: ${latency.reads} single reads`;
  return element('details', '', [element('summary', '', title), map]);
}

/** What is signed of a wipe that left anything is no certificate, and is not called one. */
function certificateLinks(task) {
  const all = task.result.wipe.disks.every(({ status }) => status === 'skipped' || erased.includes(status));
  const isCertificate = task.state === 'succeeded' && all;
  const links = ['pdf', 'json'].map((kind) => {
    const name = isCertificate ? 'Certificate' : 'Signed record: NOT ERASED';
    const link = element('a', isCertificate ? '' : 'bad', `${name} (${kind.toUpperCase()})`);
    link.href = `/api/tasks/${encodeURIComponent(task.id)}/certificate.${kind}`;
    return link;
  });
  return element('p', '', [links[0], ' \u00b7 ', links[1]]);
}

function heading(task, state, tone) {
  const { image, version } = task.params ?? {};
  const what = image ? `${task.type} ${image}${version ? `@${version}` : ''}` : task.type;
  const attempt = task.attempt > 1 ? `, attempt ${task.attempt}` : '';
  return element('h3', '', [
    element('span', '', task.host.name),
    element('span', 'faint', what),
    element('span', 'faint', time(task.endedAt ?? task.startedAt ?? task.createdAt)),
    element('span', `state ${tone}`, state + attempt),
  ]);
}

function logLink(task) {
  const link = element('a', '', 'Log');
  link.href = `/api/tasks/${encodeURIComponent(task.id)}/log?format=text`;
  return element('p', '', [link]);
}

function imageRows({ name, versions }) {
  return versions.map((version) => {
    const chunks = version.hurt.filter((name) => /^[0-9a-f]{64}$/.test(name)).length;
    const hurt = version.hurt.filter((name) => !/^[0-9a-f]{64}$/.test(name)).map((name) => `damaged ${name}`);
    if (chunks > 0) hurt.unshift(`${chunks} damaged chunk${chunks === 1 ? '' : 's'}`);
    const state = element('span', hurt.length > 0 ? 'bad' : 'good', hurt.join(', ') || 'sound');
    return row([
      `${name}@${version.version}${version.derivedFrom ? `, made from @${version.derivedFrom}` : ''}`,
      time(version.createdAt),
      number(bytes(version.diskBytes)),
      number(bytes(version.usedBytes)),
      number(String(version.chunks)),
      state,
    ]);
  });
}

function hostRow(host) {
  const { manufacturer, product, firmware } = host.identity ?? {};
  const machine = [manufacturer, product, firmware].filter(Boolean).join(' ');
  return row([
    host.name,
    host.macs.join(', '),
    machine || '\u2013',
    host.lastSeen ? time(host.lastSeen) : 'never',
  ]);
}

function fill(id, children, whenEmpty) {
  const place = find(id);
  if (children.length === 0) {
    const note = element('div', 'empty', whenEmpty);
    if (place.tagName === 'TBODY') {
      const cell = element('td', '', [note]);
      cell.colSpan = 6;
      children = [element('tr', '', [cell])];
    } else children = [note];
  }
  place.replaceChildren(...children);
}

const row = (cells) =>
  element(
    'tr',
    '',
    cells.map((cell) =>
      cell instanceof HTMLTableCellElement
        ? cell
        : element('td', '', typeof cell === 'string' ? cell : [cell]),
    ),
  );
const number = (text) => element('td', 'number', text);

/** `content`: text, or nodes. Never markup. */
function element(name, className = '', content = '') {
  const node = document.createElement(name);
  if (className) node.className = className.trim();
  if (typeof content === 'string') node.textContent = content;
  else node.append(...content);
  return node;
}

function bytes(count) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  const power = count < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(count) / 10));
  const value = count / 2 ** (10 * power);
  return `${power === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[power]}`;
}

function seconds(count) {
  const whole = Math.round(count);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

const time = (iso) => new Date(iso).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
