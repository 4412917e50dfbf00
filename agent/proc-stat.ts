/**
 * A line of proc(5)'s `/proc/PID/stat` or `/proc/PID/task/TID/stat`.
 *
 * @returns the second field, without its brackets, and any from the third on by its number there
 */
export const parseStat = (line: string): { name: string; field: (number: number) => string | undefined } => {
  // The name may itself hold spaces and brackets: count from the last one.
  const end = line.lastIndexOf(')');
  const fields = line.slice(end + 2).split(' ');
  return { name: line.slice(line.indexOf('(') + 1, end), field: (number) => fields[number - 3] };
};
