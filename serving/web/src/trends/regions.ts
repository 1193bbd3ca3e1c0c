const NAMES = new Intl.DisplayNames(["en"], { type: "region", fallback: "code" });

/** "Germany" for "DE"; a code that nobody has named stays as it is. */
export function regionName(code: string): string {
  try {
    return NAMES.of(code) ?? code;
  } catch {
    return code; // not even the shape of a region's code
  }
}
