import type {Random} from './random.ts';

/** Where customers live: the country, how many of a thousand orders come from it, cities. A shop at home in the UK. */
const COUNTRIES: readonly (readonly [country: string, weight: number, cities: string])[] = [
  ['United Kingdom', 520, 'London Leeds Bristol Glasgow Cardiff'],
  ['Germany', 95, 'Berlin Hamburg München Köln'],
  ['France', 82, 'Paris Lyon Nantes Orléans'],
  ['Ireland', 60, 'Dublin Cork Galway'],
  ['Spain', 34, 'Madrid Valencia Málaga'],
  ['Netherlands', 32, 'Amsterdam Utrecht Eindhoven'],
  ['Belgium', 24, 'Gent Antwerpen Liège'],
  ['Switzerland', 22, 'Zürich Basel Genève'],
  ['Portugal', 18, 'Lisboa Porto Évora'],
  ['Australia', 16, 'Sydney Perth Hobart'],
  ['Italy', 14, 'Milano Torino Forlì'],
  ['Norway', 12, 'Oslo Bergen Tromsø'],
  ['Sweden', 11, 'Stockholm Göteborg Malmö'],
  ['Denmark', 10, 'København Aarhus'],
  ['Finland', 9, 'Helsinki Turku'],
  ['Austria', 9, 'Wien Graz'],
  ['Poland', 8, 'Kraków Łódź Gdańsk'],
  ['Japan', 6, '東京 Osaka'],
  ['United States', 6, 'Boston Portland Austin'],
  ['Canada', 5, 'Toronto Montréal'],
  ['Czechia', 5, 'Praha Brno'],
  ['Greece', 4, 'Athens Patras'],
  ['Israel', 4, 'Haifa Jerusalem'],
  ['Singapore', 3, 'Singapore'],
  ['Iceland', 3, 'Reykjavík Akureyri'],
  ['Hungary', 3, 'Budapest Győr'],
  ['Estonia', 2, 'Tallinn Tartu'],
  ['Lithuania', 2, 'Vilnius Kaunas'],
  ['Malta', 2, 'Valletta'],
  ['Cyprus', 2, 'Nicosia Limassol'],
  ['United Arab Emirates', 2, 'Dubai Sharjah'],
  ['Brazil', 1, 'Recife Curitiba'],
  ['South Africa', 1, 'Durban Pretoria'],
  ['New Zealand', 1, 'Wellington Nelson'],
  ['Lebanon', 1, 'Beirut Tripoli'],
];
const WEIGHTS = COUNTRIES.map(([, weight]) => weight);

const FIRST =
  'Ada Alan Amélie Anja Björn Carla Chloé David Elif Emma Finn Grace Hana Iris Jonas Jürgen Kasia Liam Lucía Mads ' +
  'Maja Marta Mehmet Nora Oisín Olga Paul Priya Rosa Samir Søren Tariq Uma Vera Wei Yara Zoë';
const LAST =
  'Adams Bauer Bianchi Byrne Clarke Dubois Evans Fischer García Hansen Hughes Ito Jensen Kaya Kowalski Lefèvre Müller ' +
  "Nagy Novák O'Brien Okafor Patel Pereira Quinn Rossi Schmidt Silva Smith Svensson Taylor Virtanen Walsh Weber Zhang";
const STREETS =
  'Station Road;High Street;Mill Lane;Rue des Lilas;Lindenstraße;Calle Mayor;Kerkstraat;Via Roma;Church Close';
const [FIRST_NAMES, LAST_NAMES, STREET_NAMES] = [FIRST.split(' '), LAST.split(' '), STREETS.split(';')];

export type Person = {name: string; email: string; country: string; address: string};

/** A country, as likely as orders come from it. */
export const randomCountry = (random: Random): string => COUNTRIES[random.weighted(WEIGHTS)]![0];

/** A customer's own columns; `address` is JSON text. The same e-mail may come twice: people have two accounts. */
export function randomPerson(random: Random): Person {
  const country = randomCountry(random);
  const [first, last] = [random.pick(FIRST_NAMES), random.pick(LAST_NAMES)];
  const mailbox = `${first}.${last}`.normalize('NFD').replace(/[^A-Za-z.]/g, '');
  return {
    name: `${first} ${last}`,
    email: `${mailbox.toLowerCase()}${random.between(1, 9999)}@example.com`,
    country,
    address: randomAddress(random, country),
  };
}

/** An address in `country` (in a city of it where the shop knows one) as JSON text. */
export function randomAddress(random: Random, country: string): string {
  const cities = COUNTRIES.find(([name]) => name === country)?.[2] ?? 'Springfield Newtown';
  return JSON.stringify({
    street: `${random.between(1, 240)} ${random.pick(STREET_NAMES)}`,
    city: random.pick(cities.split(' ')),
    postcode: String(random.between(10_000, 99_999)),
    ...(random.chance(0.15) && {
      note: random.pick(['ring twice', 'leave with "Nº 12"', 'back door \\ garage']),
    }),
  });
}
