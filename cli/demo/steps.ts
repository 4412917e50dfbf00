/**
 * The demo's list of steps on the terminal: all of them listed at once, each with its progress; plain lines
 * where there is no terminal.
 *
 * Invariant: only shows. A step that fails ends the list with its error, which the caller gets.
 */
import { Listr } from 'listr2';

export interface Told {
  /** What is happening now; overwritten by the next. */
  say: (text: string) => void;
  /** A line that stays. */
  line: (text: string) => void;
}

export interface Step {
  title: string;
  /** What it returns is shown beside the title of the finished step. */
  run: (told: Told) => Promise<string | undefined>;
}

const COLUMNS_MIN = 40;

export async function runSteps(steps: Step[]): Promise<void> {
  // A terminal too narrow to redraw lines in is none.
  const isTerminal = process.stdout.isTTY === true && process.stdout.columns >= COLUMNS_MIN;
  const tasks = steps.map(({ title, run }) => ({
    title,
    rendererOptions: { persistentOutput: true, outputBar: Number.POSITIVE_INFINITY },
    task: async (_: unknown, task: { title: string | undefined; output: string | undefined }) => {
      const done = await run({
        say: (text) => {
          // Without a terminal every change would be a line of its own.
          if (isTerminal) task.title = `${title}: ${text}`;
        },
        line: (text) => {
          task.output = text;
        },
      });
      const shown = done === undefined ? title : `${title}: ${done}`;
      if (task.title !== shown) task.title = shown;
    },
  }));
  const list = new Listr(tasks, {
    concurrent: false,
    registerSignalListeners: false,
    renderer: isTerminal ? 'default' : 'simple',
    rendererOptions: isTerminal ? { collapseErrors: false, showErrorMessage: false } : {},
  });
  await list.run();
}
