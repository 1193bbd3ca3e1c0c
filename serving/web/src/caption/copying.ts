import type { Trend } from "./stream";

/** Hashtags of the trends: the spelling that people use where there is one, else made of the phrase. */
export function hashtags(trends: readonly Trend[]): string[] {
  const tags = trends.map(
    ({ phrase, aliases }) =>
      aliases.find((alias) => /^#[\p{L}\p{N}_]+$/u.test(alias)) ?? `#${phrase.replace(/[^\p{L}\p{N}_]+/gu, "")}`,
  );
  return [...new Set(tags)].filter((tag) => tag.length > 1);
}

/** The text, and under it those hashtags that it does not have yet. */
export function withHashtags(text: string, trends: readonly Trend[]): string {
  const lower = text.toLowerCase();
  const missing = hashtags(trends).filter((tag) => !lower.includes(tag.toLowerCase()));
  return missing.length ? `${text}\n\n${missing.join(" ")}` : text;
}
