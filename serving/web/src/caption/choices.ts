/** What the form offers. The API takes any tone, any language tag and any country code. */

export const TONES = ["playful", "warm", "matter of fact", "dry humour", "poetic", "enthusiastic", "calm", "formal"];

const TAGS = "en de fr es it pt pt-BR nl pl sv da nb fi cs tr el uk ru ar he hi th vi id ja ko zh-Hans zh-Hant".split(" ");
const CODES =
  "AR AT AU BE BR CA CH CL CO CZ DE DK EG ES FI FR GB GR HK HU ID IE IL IN IT JP KE KR MX MY NG NL NO NZ PH PL PT RO SA SE SG TH TR TW UA US VN ZA".split(
    " ",
  );

export const LANGUAGES = TAGS.map((tag): [string, string] => [tag, named("language", tag)]);

export function countries(): [string, string][] {
  return CODES.map((code): [string, string] => [code, named("region", code)]).sort(([, a], [, b]) => a.localeCompare(b));
}

function named(type: "language" | "region", code: string): string {
  return new Intl.DisplayNames("en", { type }).of(code) ?? code;
}
