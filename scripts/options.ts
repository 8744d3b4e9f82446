import {InvalidArgumentError} from 'commander';

// How scripts read what options of theirs are given.

export const whole = (text: string): number => {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('It is a whole number.');
  return Number(text);
};

export const atLeastOne = (text: string): number => {
  if (!/^[1-9]\d*$/.test(text)) throw new InvalidArgumentError('It is a whole number above 0.');
  return Number(text);
};

export const positive = (text: string): number => {
  if (!(Number(text) > 0)) throw new InvalidArgumentError('It is a number above 0.');
  return Number(text);
};
