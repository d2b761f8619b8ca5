// Figures as text. A figure that says nothing is an en dash.
const none = '–';

export function count(n) {
  if (n < 10000) return String(n);
  if (n < 1e6) return (n / 1e3).toFixed(n < 1e5 ? 1 : 0) + 'k';
  return (n / 1e6).toFixed(1) + 'M';
}

export function rate(v) {
  if (!v) return '0';
  if (v < 0.1) return '<0.1';
  if (v < 10) return v.toFixed(1);
  return count(Math.round(v));
}

// ms gives [number, unit].
export function ms(v) {
  if (!v) return [none, ''];
  if (v < 1) return [v.toFixed(2), 'ms'];
  if (v < 10) return [v.toFixed(1), 'ms'];
  if (v < 1000) return [v.toFixed(0), 'ms'];
  if (v < 60000) return [(v / 1000).toFixed(v < 10000 ? 1 : 0), 's'];
  return [(v / 60000).toFixed(1), 'min'];
}
export const msText = (v) => ms(v).join(' ').trim();

export function share(v) {
  const p = v * 100;
  if (p === 0) return '0 %';
  if (p < 0.1) return '<0.1 %';
  return p.toFixed(p < 10 ? 1 : 0) + ' %';
}

// bytes gives [number, unit].
export function bytes(v) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let i = 0;
  while (v >= 1000 && i < units.length - 1) { v /= 1024; i++; }
  return [v < 10 && i > 1 ? v.toFixed(1) : v.toFixed(0), units[i]];
}
export const bytesText = (v) => bytes(v).join(' ');

// bytesOf writes a part and its whole in the whole's unit, once: "6.4 of 16 GiB".
export function bytesOf(part, whole) {
  const [n, unit] = bytes(whole);
  return `${inUnit(part, whole)} of ${n} ${unit}`;
}
export function inUnit(part, whole) {
  let scale = 1;
  for (let v = whole; v >= 1000; v /= 1024) scale *= 1024;
  const v = part / scale;
  return v === 0 ? '0' : v < 0.1 ? v.toFixed(2) : v < 10 ? v.toFixed(1).replace(/\.0$/, '') : v.toFixed(0);
}

export function cores(millis) {
  const c = millis / 1000;
  return c === 0 ? '0' : c < 0.1 ? c.toFixed(2) : c < 10 ? c.toFixed(1).replace(/\.0$/, '') : c.toFixed(0);
}

export const coresText = (millis) => (millis === 1000 ? '1 core' : cores(millis) + ' cores');

// span is a time that passed.
export function span(msec) {
  const s = Math.max(0, msec) / 1000;
  if (s < 60) return Math.floor(s) + ' s';
  if (s < 3600) return Math.floor(s / 60) + ' min';
  if (s < 172800) return Math.floor(s / 3600) + ' h';
  return Math.floor(s / 86400) + ' days';
}

export const plural = (n, noun) => (n === 1 ? '1 ' + noun : count(n) + ' ' + noun + 's');

// stateOf is an instance's state as people see it: a ready one is busy or idle.
export const stateOf = (i) => (i.state !== 'ready' ? i.state : i.held > 0 ? 'busy' : 'idle');

// sinceOf is how long an instance has been in its state. Busy and idle change faster than anybody looks: what counts there is readiness.
export const sinceOf = (i, now) => (i.state === 'ready' ? `${stateOf(i)}, ready for` : i.state + ' for') + ' ' + span(now - Date.parse(i.since));

// name is a function's name as the command line takes it.
export const name = (f) => (f.namespace === 'default' || !f.namespace ? f.function : f.function + '.' + f.namespace);

// word quotes what would not stay one word in a shell: names come from elsewhere and commands are pasted.
export const word = (s) => (/^[A-Za-z0-9._][A-Za-z0-9._-]*$/.test(s) ? s : "'" + s.replaceAll("'", "'\\''") + "'");
