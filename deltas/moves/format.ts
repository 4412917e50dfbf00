/** Columns of the chunks of a moved file; their order is part of the format (docs/delta-format.md §4.5). */

/** Of its first chunk, after the number of ranges. */
export const PLAN_COLUMNS = ['segments', 'anchors', 'gaps', 'lengths', 'seeks'] as const;
/** Of the chunks that follow, after the number of copied bytes that each speaks of. */
export const DATA_COLUMNS = ['skips', 'fixes', 'same', 'runs', 'bytes'] as const;
