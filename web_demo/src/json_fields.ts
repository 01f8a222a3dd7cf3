import {decimal, fault} from './fault.js';

/** Whole numbers up to here are exact as doubles. */
const MAX_WHOLE = 9.0e15;

/** Strict access to one JSON object; every method throws where a value is of another kind. */
export class JsonFields {
  /** @param where file and place, for messages. */
  private constructor(
      private readonly json: Record<string, unknown>,
      private readonly where: string) {}

  /** Parses `text`, which must be one JSON object; `where` names the file. */
  static parse(text: string, where: string): JsonFields {
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch (error) {
      const found = `text that is not JSON (${(error as Error).message})`;
      throw fault(where, found, 'a JSON object');
    }
    if (!isObject(json)) {
      throw fault(where, 'text that is not JSON (no object)', 'a JSON object');
    }
    return new JsonFields(json, where);
  }

  text(key: string): string {
    return this.typed(key, 'a text', isText);
  }

  flag(key: string): boolean {
    return this.typed(key, 'true or false', isFlag);
  }

  number(key: string): number {
    return this.typed(key, 'a number', isNumber);
  }

  wholeNumber(key: string): number {
    const number = this.number(key);
    if (number < 0 || !Number.isInteger(number) || number > MAX_WHOLE) {
      throw fault(this.at(key), decimal(number), 'a whole number of at least 0');
    }
    return number;
  }

  fields(key: string): JsonFields {
    return new JsonFields(this.typed(key, 'an object', isObject), this.at(key));
  }

  fieldsOrNull(key: string): JsonFields|null {
    return this.has(key) ? this.fields(key) : null;
  }

  has(key: string): boolean {
    return this.json[key] !== undefined && this.json[key] !== null;
  }

  texts(key: string): string[] {
    return this.list(key, 'a list of texts', isText);
  }

  numbers(key: string): number[] {
    return this.list(key, 'a list of numbers', isNumber);
  }

  objects(key: string): JsonFields[] {
    return this.list(key, 'a list of objects', isObject)
        .map((json, index) => new JsonFields(json, `${this.at(key)}[${index}]`));
  }

  at(key: string): string {
    return `${this.where}, ${key}`;
  }

  private list<T>(
      key: string, expected: string, is: (value: unknown) => value is T): T[] {
    const array = this.typed(key, expected, Array.isArray);
    return array.map((element: unknown) => {
      if (is(element)) return element;
      throw fault(this.at(key), element, expected);
    });
  }

  private typed<T>(
      key: string, expected: string, is: (value: unknown) => value is T): T {
    if (!this.has(key)) throw fault(this.at(key), 'nothing', expected);
    const found = this.json[key];
    if (is(found)) return found;
    throw fault(this.at(key), found, expected);
  }
}

function isText(value: unknown): value is string {
  return typeof value === 'string';
}

function isFlag(value: unknown): value is boolean {
  return typeof value === 'boolean';
}

function isNumber(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
