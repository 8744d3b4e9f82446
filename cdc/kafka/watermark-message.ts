import {z} from 'zod';
import type {Watermark} from './transport.ts';

/** A watermark as it stands in its topic. */
export const WatermarkMessage = z.object({
  epoch: z.number().default(0),
  position: z.string(),
  micros: z.string(),
  newest: z.record(z.string(), z.string()),
  ends: z.record(z.string(), z.record(z.coerce.number(), z.string())),
}) satisfies z.ZodType<Watermark>;
