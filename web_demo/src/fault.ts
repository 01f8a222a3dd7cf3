/**
 * The one error of the runtime. Its message is a sentence that names the file (or
 * argument), what was found and what was expected.
 */
export class EarlyExitError extends Error {
  override readonly name = 'EarlyExitError';
}

/** Makes the error "WHERE: found FOUND, expected EXPECTED." */
export function fault(where: string, found: unknown, expected: unknown): EarlyExitError {
  return new EarlyExitError(
      `${where}: found ${shown(found)}, expected ${shown(expected)}.`);
}

/** Lists in brackets; all else as it is. */
function shown(value: unknown): string {
  return Array.isArray(value) ? `[${value.map(shown).join(', ')}]` : String(value);
}

/** A number as the other engines of the project write it, with a decimal point. */
export function decimal(value: number): string {
  return Number.isInteger(value) ? value.toFixed(1) : String(value);
}
