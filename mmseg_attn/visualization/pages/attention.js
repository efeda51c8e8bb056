'use strict';

// The page holds `about`, classes and colours, and the pictures, of which each
// is unpacked when it is chosen. A place is a pixel of the picture as it was
// read; the block it lies in says which of the maps is shown.

const element = (id) => document.getElementById(id);
const about = JSON.parse(element('about').textContent);
const sources = [...document.querySelectorAll('script.picture')];

let picture; // the chosen one, unpacked
let chosen = 0;
let place = { x: 0, y: 0 };
let held = false;
let maps = []; // the panels whose content depends on the place
let views = []; // all pictures, which show the place

// Unpacking

async function inflate(text) {
  const packed = atob(text);
  const bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
  const stream = new Blob([bytes]).stream();
  return new Response(stream.pipeThrough(new DecompressionStream('deflate'))).arrayBuffer();
}

async function unpack(source) {
  const found = JSON.parse(source.textContent);
  const { blocks, rows, columns, loops } = found.maps;
  const count = blocks[0] * blocks[1];
  for (const loop of loops) {
    loop.levels = new Uint8Array(await inflate(loop.maps));
    // Each map is stored as the difference to the one before.
    for (let i = count; i < loop.levels.length; i++) loop.levels[i] += loop.levels[i - count];
    loop.facts = new Float32Array(await inflate(loop.facts));
    delete loop.maps;
  }
  for (const mask of found.masks) mask.labels = new Uint16Array(await inflate(mask.values));
  // The block of each row and column of the image, which may be smaller.
  const sampled = (from, length) => Uint32Array.from(
    { length }, (_, i) => from[Math.floor((i + 0.5) * from.length / length)]);
  found.imageColumns = sampled(columns, found.size[0]);
  found.imageRows = sampled(rows, found.size[1]);
  return found;
}

// Drawing

// A colour as the number that a canvas keeps for an opaque pixel.
const solid = ([red, green, blue]) => (255 << 24 | blue << 16 | green << 8 | red) >>> 0;
const heat = Uint32Array.from(about.colours, solid);
const percent = (share) => `${Number((100 * share).toPrecision(3))} %`;

function make(tag, properties = {}, ...inside) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...inside);
  return node;
}

function paint(canvas, numbers, colours, other) {
  const data = new ImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(data.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = colours[numbers[i]] ?? other;
  canvas.getContext('2d').putImageData(data, 0, 0);
}

function plate(width, height) {
  return make('canvas', { width, height });
}

function fill(view, ...drawn) {
  const image = make('img', { src: picture.image, alt: '', draggable: false });
  view.replaceChildren(image, ...drawn, make('div', { className: 'ring' }));
  view.style.setProperty('--ratio', picture.width / picture.height);
  views.push(view);
}

function addPanel(title, kind, canvas, ...below) {
  const view = make('div', { className: `view ${kind}` });
  fill(view, canvas);
  follow(view);
  const caption = make('figcaption', { textContent: title });
  element('panels').append(make('figure', {}, caption, view, ...below));
}

function addMap(loop, index) {
  const canvas = plate(...picture.size);
  canvas.id = `map-${index + 1}`;
  const bar = plate(256, 1);
  paint(bar, Uint8Array.from({ length: 256 }, (_, i) => i), heat);
  const ticks = [0, 1, 2].map(() => make('data'));
  const fact = make('p');
  const scale = make('div', { className: 'scale' }, bar, make('div', {}, ...ticks), fact);
  addPanel(loop.title, 'map', canvas, scale);
  maps.push({ loop, canvas, ticks, fact });
}

function addMask(mask) {
  const canvas = plate(...picture.size);
  paint(canvas, mask.labels, about.palette.map(solid), solid(about.ignored));
  addPanel(mask.title, 'mask', canvas);
}

function label(mask) {
  const [width, height] = picture.size;
  const x = Math.floor((place.x + 0.5) * width / picture.width);
  const y = Math.floor((place.y + 0.5) * height / picture.height);
  return mask.labels[y * width + x];
}

function chip(tag, index) {
  const name = about.classes[index] ?? 'ignored';
  const node = make(tag, { className: 'class', textContent: name });
  const colour = about.palette[index] ?? about.ignored;
  node.style.setProperty('--colour', `rgb(${colour.join(' ')})`);
  return node;
}

function showMap({ loop, canvas, ticks, fact }) {
  const { blocks, cells, step } = picture.maps;
  const count = blocks[0] * blocks[1];
  const position = loop.rows[place.y] * loop.positions[1] + loop.columns[place.x];
  const levels = loop.levels.subarray(position * count, (position + 1) * count);
  const shown = new Uint8Array(canvas.width * canvas.height);
  let next = 0;
  for (const row of picture.imageRows) {
    const line = levels.subarray(row * blocks[1], (row + 1) * blocks[1]);
    for (const column of picture.imageColumns) shown[next++] = line[column];
  }
  paint(canvas, shown, heat);
  const [largest, reach, sum] = loop.facts.subarray(3 * position, 3 * position + 3);
  [0, largest / 4, largest].forEach((share, i) => {
    ticks[i].value = share;
    ticks[i].textContent = percent(share);
  });
  ticks[2].textContent += step > 1 ? ` per ${step} × ${step} cells` : ' per cell';
  const lacking = sum < 0.9995 ? `; in sum ${percent(sum)}` : '';
  fact.textContent = `90 % of the weight on ${reach} of ${cells[0] * cells[1]} cells${lacking}`;
}

// First and last + 1 of the pixels in the block of one of them.
function span(blocks, pixel) {
  return [blocks.indexOf(blocks[pixel]), blocks.lastIndexOf(blocks[pixel]) + 1];
}

function show() {
  maps.forEach(showMap);
  for (const view of views) {
    const ring = view.querySelector('.ring');
    ring.style.left = `${100 * (place.x + 0.5) / picture.width}%`;
    ring.style.top = `${100 * (place.y + 0.5) / picture.height}%`;
  }
  const { rows, columns } = picture.maps.loops.at(-1);
  const [left, right] = span(columns, place.x);
  const [top, bottom] = span(rows, place.y);
  Object.assign(element('block').style, {
    left: `${100 * left / picture.width}%`,
    top: `${100 * top / picture.height}%`,
    width: `${100 * (right - left) / picture.width}%`,
    height: `${100 * (bottom - top) / picture.height}%`,
  });
  const said = [`Pixel (${place.x}, ${place.y})${held ? ', held' : ''}`];
  for (const mask of picture.masks) said.push(` · ${mask.title} `, chip('span', label(mask)));
  element('status').replaceChildren(...said);
  document.body.classList.toggle('held', held);
}

let waiting = false;

function showSoon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    show();
  });
}

function notes() {
  const { step, cells, blocks, loops } = picture.maps;
  const blocksSaid = step > 1
    ? `So that the page stays below 10 MB for this picture, and light for a browser, ${step} × ${step} cells are one block, `
      + `of ${blocks[0]} × ${blocks[1]}: a map is that of the middle cell of the block pointed at, `
      + 'and gives the sums over blocks.'
    : 'Each cell has a map of its own.';
  return [
    `The attention sees the picture, of ${picture.width} × ${picture.height} pixels, as `
      + `${cells[1]} × ${cells[0]} cells. ${blocksSaid}`,
    'The colours go with the square root of a cell’s share, in 255 levels up to the map’s largest: '
      + 'a share is right to 0.4 % of that. Every map has its own scale. The largest share, the sum '
      + 'and the number of cells that hold 90 % are not rounded.',
    ...(loops.length > 1
      ? ['Each map goes back through all loops, or layers, before it, to the input of the first.'] : []),
    ...picture.notes,
  ];
}

async function open(index) {
  chosen = index;
  document.querySelectorAll('nav button').forEach(
    (button, i) => button.setAttribute('aria-pressed', i === index));
  document.querySelector('main').setAttribute('aria-busy', 'true');
  const found = await unpack(sources[index]);
  if (chosen !== index) return; // another one was chosen meanwhile
  picture = found;
  maps = [];
  views = [];
  held = false;
  place = { x: picture.width >> 1, y: picture.height >> 1 };
  element('name').textContent = picture.name;
  fill(element('pointed'), make('div', { id: 'block' }));
  element('panels').replaceChildren();
  picture.maps.loops.forEach(addMap);
  picture.masks.forEach(addMask);
  const present = new Set(picture.masks.flatMap((mask) => [...new Set(mask.labels)]));
  element('legend').replaceChildren(
    ...[...present].sort((a, b) => a - b).map((index) => chip('li', index)));
  element('notes').replaceChildren(...notes().map((textContent) => make('p', { textContent })));
  show();
  document.querySelector('main').setAttribute('aria-busy', 'false');
}

// Pointer, touch and keys

function follow(view) {
  const move = (event) => {
    const box = view.getBoundingClientRect();
    const within = (part, count) => Math.min(Math.max(Math.floor(part * count), 0), count - 1);
    place = {
      x: within((event.clientX - box.left) / box.width, picture.width),
      y: within((event.clientY - box.top) / box.height, picture.height),
    };
    showSoon();
  };
  view.addEventListener('pointermove', (event) => {
    if (picture && !held) move(event);
  });
  view.addEventListener('pointerdown', (event) => {
    if (!picture || event.button !== 0) return;
    // A finger leaves nothing behind it that would have to be held.
    held = event.pointerType === 'mouse' && !held;
    move(event);
  });
}

// The middle of the block that lies some blocks further.
function further(blocks, pixel, by) {
  const seen = [...new Set(blocks)];
  const index = seen.indexOf(blocks[pixel]) + by;
  const block = seen[Math.min(Math.max(index, 0), seen.length - 1)];
  return (blocks.indexOf(block) + blocks.lastIndexOf(block)) >> 1;
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const PAGES = { PageUp: -1, PageDown: 1 };

function press(event) {
  if (!picture || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in ARROWS) {
    const [x, y] = ARROWS[event.key].map((step) => step * (event.shiftKey ? 5 : 1));
    const { rows, columns } = picture.maps.loops.at(-1);
    if (x) place.x = further(columns, place.x, x);
    if (y) place.y = further(rows, place.y, y);
  } else if (event.key === 'Enter') {
    held = !held;
  } else if (event.key === 'Escape') {
    held = false;
  } else if (event.key in PAGES) {
    const index = chosen + PAGES[event.key];
    if (index in sources) start(index);
  } else {
    return;
  }
  event.preventDefault();
  showSoon();
}

function start(index) {
  open(index).catch((error) => {
    element('problem').textContent = 'DecompressionStream' in window
      ? `The page cannot be read: ${error.message}`
      : 'This browser is too old for the page: take one of 2023 or later.';
    element('problem').hidden = false;
  });
}

function button(source, index) {
  const image = make('img', { src: source.dataset.thumbnail, alt: '' });
  const name = make('span', { textContent: source.dataset.name });
  const node = make('button', { type: 'button', title: source.dataset.name }, image, name);
  node.addEventListener('click', () => start(index));
  return node;
}

follow(element('pointed'));
element('pointed').addEventListener('keydown', press);
element('strength').addEventListener('input', (event) => {
  document.documentElement.style.setProperty('--strength', event.target.value / 100);
});
element('pictures').append(...sources.map(button));
element('pictures').hidden = sources.length < 2;
start(0);
