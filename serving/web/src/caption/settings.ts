/** What is asked for besides the photo. Kept in this browser from visit to visit, but for the note. */
import type { Schemas } from "../api/client";
import { LIMITS } from "../api/limits";

export type Platform = Schemas["CaptionBody"]["platform"];

export interface Settings {
  note: string;
  platform: Platform;
  tone: string;
  language: string;
  candidates: number;
  trends: boolean;
  region: string;
  hashtags: boolean;
  emoji: boolean;
  /** Trends not to be used: id and phrase. */
  excluded: { id: string; phrase: string }[];
}

const DEFAULTS: Settings = {
  note: "",
  platform: "generic",
  tone: "",
  language: "en",
  candidates: 3,
  trends: true,
  region: "",
  hashtags: true,
  emoji: true,
  excluded: [],
};

const KEY = "trendrag.settings";

export function loadSettings(): Settings {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<Settings>;
    const candidates = Math.min(kept.candidates ?? DEFAULTS.candidates, LIMITS.candidates);
    return { ...DEFAULTS, ...kept, candidates, note: "", excluded: [] };
  } catch {
    return DEFAULTS; // storage is off, or something else is there
  }
}

export function saveSettings(settings: Settings): void {
  try {
    localStorage.setItem(KEY, JSON.stringify({ ...settings, note: undefined, excluded: undefined }));
  } catch {
    // Storage is off: they last as long as the page.
  }
}

/** The settings without the trend; the oldest of too many is forgotten. */
export function without(settings: Settings, trend: { id: string; phrase: string }): Settings {
  const others = settings.excluded.filter(({ id }) => id !== trend.id);
  return { ...settings, excluded: [...others, trend].slice(-LIMITS.excluded) };
}

/** The body of a caption request, but for the image. */
export function body(settings: Settings): Record<string, unknown> {
  const { note, platform, tone, language, candidates, trends, region, hashtags, emoji, excluded } = settings;
  return {
    platform,
    language,
    candidates,
    trends,
    hashtags,
    emoji,
    ...(note.trim() && { note }),
    ...(tone.trim() && { tone: tone.trim() }),
    ...(trends && region && { region }),
    ...(excluded.length && { exclude: excluded.map(({ id }) => id) }),
  };
}
