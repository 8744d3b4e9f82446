import type {Random} from './random.ts';

/** The product ranges: what is sold there and for how much, in pence. */
const RANGES: readonly (readonly [category: string, low: number, high: number, things: string])[] = [
  ['Kitchen', 295, 4995, 'Teapot;Mug;Cake Tin;Cutlery Set;Storage Jar;Chopping Board'],
  ['Garden', 195, 8995, 'Watering Can;Bird Feeder;Plant Pot;Lantern;Deck Chair'],
  ['Home', 395, 14995, 'Cushion;Wall Clock;Picture Frame;Candle Holder;Throw;Mirror'],
  ['Stationery', 85, 1995, 'Notebook;Gift Wrap;Fountain Pen;Card Set;Sticker Sheet'],
  ['Toys', 125, 5995, 'Wooden Train;Jigsaw;Spinning Top;Doll;Building Blocks'],
  ['Bags', 165, 7995, 'Jumbo Bag;Lunch Bag;Rucksack;Shopper;Wash Bag'],
  ['Seasonal', 65, 3995, 'Bauble;Garland;Advent Calendar;Egg Basket;Paper Chain'],
];
const COLOURS = ['Red', 'Ivory', 'Sky Blue', 'Mint', 'Charcoal', 'Rose', 'Mustard', 'Natural'];
const STYLES = [
  'Retrospot',
  'Vintage',
  'Enamel',
  'Striped',
  'Hand-painted',
  'Woodland',
  'Polka Dot',
  'Classic',
];
const MATERIALS = ['cotton', 'enamel', 'beech', 'ceramic', 'recycled glass', 'paper', 'steel'];

export type Product = {
  sku: string;
  name: string;
  category: string;
  /** The price in thousandths. */
  mills: number;
  /** JSON text of an object. */
  attributes: string;
  description: string;
};

/** The `number`-th product (from 1) of the catalogue that `random` draws. */
export function randomProduct(random: Random, number: number): Product {
  const [category, low, high, things] = random.pick(RANGES);
  const colour = random.pick(COLOURS);
  // The lower of two draws: most of a range is cheap. A few prices have a third decimal, as trade prices do.
  const pence = Math.min(random.between(low, high), random.between(low, high));
  return {
    sku: `${category.slice(0, 2).toUpperCase()}-${String(number).padStart(5, '0')}`,
    name: `${random.pick(STYLES)} ${random.pick(things.split(';'))} ${colour}`,
    category,
    mills: pence * 10 + (random.chance(0.05) ? 5 : 0),
    attributes: JSON.stringify({
      colour,
      material: random.pick(MATERIALS),
      weight_g: random.between(20, 4000),
      ...(random.chance(0.3) && {
        tags: [random.pick(['new', 'gift', 'sale']), random.pick(['eco', 'boxed'])],
      }),
    }),
    description: randomDescription(random),
  };
}

const SYLLABLES = (() => {
  const [onsets, vowels, codas] = [
    'b br c ch d f g gl h j k l m n p pr r s st t v w z',
    'a e i o u ai ee ou',
    ' n r s t l',
  ];
  return onsets.split(' ').flatMap(o => vowels.split(' ').flatMap(v => codas.split(' ').map(c => o + v + c)));
})();

/**
 * 6 to 10 kB of made-up words. Random syllables, because real prose compresses well: what is below 2 kB after
 * PostgreSQL's compression stays in the row, and then no UPDATE ever leaves it out of the change stream.
 */
export function randomDescription(random: Random): string {
  const size = random.between(6_000, 10_000);
  let text = '';
  while (text.length < size) {
    let sentence = '';
    for (let words = random.between(5, 14); words > 0; words--) {
      for (let n = random.between(1, 4); n > 0; n--) sentence += random.pick(SYLLABLES);
      sentence += words > 1 ? ' ' : '.';
    }
    text += (text ? (random.chance(0.2) ? '\n' : ' ') : '') + sentence[0]!.toUpperCase() + sentence.slice(1);
  }
  return text.slice(0, size);
}
