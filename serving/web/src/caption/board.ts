/**
 * What is on the table: one run of the caption service, its cards, and each card's versions.
 *
 * Text comes faster than a screen shows it: what arrives is written into the cards once a frame.
 */
import { ApiError } from "../api/client";
import type { CaptionEvent } from "../api/events";
import { LIMITS } from "../api/limits";
import { Cell } from "../cell";
import { base64, type Photo } from "./photo";
import { body, type Settings } from "./settings";
import { ask, type Ask, type Event, type Mark, type Snapshot, type Trend } from "./stream";

export type Phase = "idle" | "looking" | "finding" | "writing" | "done" | "stopped" | "failed";

export interface Run {
  phase: Phase;
  photo: Photo | null;
  /** What the model sees in the photo. */
  description: string;
  offered: Trend[];
  snapshot: Snapshot | null;
  /** Why no trend was offered, where some were asked for and none was. */
  reason: string | null;
  unjudged: boolean;
  done: Event<"done"> | null;
  error: ApiError | null;
  cards: Card[];
}

export type VersionState = "waiting" | "writing" | "done" | "failed" | "stopped";

export interface Version {
  state: VersionState;
  text: string;
  marks: Mark[];
  /** What was asked to be changed; null for the first text and for new tries. */
  asked: string | null;
  /** Where the history keeps it: an answer's id and the number within. */
  id: string | null;
  number: number;
  error: string | null;
  confidence: number | null;
  cut: boolean;
  missing: string[];
  unwanted: string[];
  degraded: boolean;
  favourite: boolean;
  verdict: "like" | "dislike" | null;
  /** As the visitor would have it. */
  edited: string | null;
}

export interface CardState {
  versions: Version[];
  /** Which of them is shown. */
  at: number;
  /** Why the newest try or change came to nothing; the version before it is then shown again. */
  trouble: string | null;
}

/** Where the text of a card is; `number` is its place, from 0. */
export interface Card {
  number: number;
  cell: Cell<CardState>;
}

const NOTHING: Run = {
  phase: "idle",
  photo: null,
  description: "",
  offered: [],
  snapshot: null,
  reason: null,
  unjudged: false,
  done: null,
  error: null,
  cards: [],
};

function version(number: number, asked: string | null = null): Version {
  return {
    state: "waiting",
    text: "",
    marks: [],
    asked,
    id: null,
    number,
    error: null,
    confidence: null,
    cut: false,
    missing: [],
    unwanted: [],
    degraded: false,
    favourite: false,
    verdict: null,
    edited: null,
  };
}

export class Board {
  readonly run = new Cell<Run>(NOTHING);
  /** The newest finished text, for screen readers. */
  readonly spoken = new Cell("");
  /** Every trend that was offered so far, by id. */
  readonly trends = new Map<string, Trend>();

  private asked: Settings | null = null;
  private readonly running = new Set<AbortController>();

  /** Writes captions for the photo; what was on the table goes. */
  async write(photo: Photo, settings: Settings, key: string): Promise<void> {
    this.stop();
    this.asked = settings;
    this.trends.clear();
    const cards = Array.from({ length: settings.candidates }, (_, number) => ({
      number,
      cell: new Cell<CardState>({ versions: [version(number)], at: 0, trouble: null }),
    }));
    this.run.set({ ...NOTHING, phase: "looking", photo, cards });
    const writers = new Map(cards.map((card) => [card.number, new VersionWriter(card.cell)]));
    const mine = () => this.run.get().cards === cards;
    try {
      await this.stream({ body: body(settings), key }, photo, (event, id) => {
        if (!mine()) return;
        if (event.type === "failed") for (const writer of writers.values()) writer.end("failed");
        this.follow(event);
        if ("candidate" in event) this.take(writers.get(event.candidate), event, id);
      });
    } catch (error) {
      if (!mine()) return;
      const stopped = isAbort(error);
      for (const writer of writers.values()) writer.end(stopped ? "stopped" : "failed");
      this.run.update({ phase: stopped ? "stopped" : "failed", error: stopped ? null : asError(error) });
    }
  }

  /** Stops whatever is being written; what was written so far stays. */
  stop(): void {
    for (const controller of this.running) controller.abort();
  }

  /** Another text for one card, unlike those that it had. */
  regenerate(card: Card): Promise<void> {
    const { versions } = card.cell.get();
    const avoid = versions.map(({ text }) => text).filter(Boolean).slice(-LIMITS.avoided);
    return this.again(card, { regenerate: { candidate: card.number, avoid } }, null, card.number);
  }

  /** Changes the text that a card shows, as the visitor says; earlier changes to it are told again. */
  refine(card: Card, change: string): Promise<void> {
    const { versions, at } = card.cell.get();
    const turns: { role: "assistant" | "user"; text: string }[] = [];
    for (const earlier of versions.slice(0, at + 1)) {
      if (!earlier.text || earlier.state !== "done") continue;
      if (earlier.asked === null) turns.length = 0; // a new try begins a new conversation
      else turns.push({ role: "user", text: earlier.asked });
      turns.push({ role: "assistant", text: earlier.edited ?? earlier.text });
    }
    turns.push({ role: "user", text: change });
    return this.again(card, { turns: turns.slice(-LIMITS.turns), candidates: 1 }, change, 0);
  }

  /** A description of the photo for those who can't see it. */
  async altText(signal: AbortSignal): Promise<string> {
    const { photo } = this.run.get();
    if (!photo || !this.asked) return "";
    const image = await base64(photo.blob);
    const wish = { image, alt_text: true, candidates: 1, trends: false };
    let text = "";
    await ask({ body: { ...body(this.asked), ...wish }, signal }, (event) => {
      if (event.type === "candidate_done") text = event.text;
      if (event.type === "failed") throw new ApiError(event.code, event.message);
    });
    return text;
  }

  show(card: Card, at: number): void {
    card.cell.update({ at });
  }

  /** Notes what the visitor thinks of the text that is shown. */
  opinion(card: Card, change: Partial<Pick<Version, "favourite" | "verdict" | "edited">>): void {
    const { versions, at } = card.cell.get();
    card.cell.update({ versions: versions.map((one, index) => (index === at ? { ...one, ...change } : one)) });
  }

  private async again(card: Card, wish: Record<string, unknown>, asked: string | null, number: number): Promise<void> {
    const { photo, cards } = this.run.get();
    if (!photo || !this.asked) return;
    const { versions, at } = card.cell.get();
    const parent = versions[at]?.id ?? null;
    // A first text that failed gives way to the next try.
    const kept = versions.filter(({ state }) => state !== "failed");
    card.cell.set({ versions: [...kept, version(number, asked)], at: kept.length, trouble: null });
    const writer = new VersionWriter(card.cell);
    try {
      await this.stream({ body: { ...body(this.asked), ...wish }, parent }, photo, (event, id) => {
        if (this.run.get().cards !== cards) return;
        if (event.type === "trends") this.remember(event);
        if (event.type === "failed") writer.end("failed", event.message);
        if ("candidate" in event) this.take(writer, event, id);
      });
    } catch (error) {
      writer.end(isAbort(error) ? "stopped" : "failed", asError(error).message);
    }
    const now = card.cell.get();
    const last = now.versions.at(-1);
    if (kept.length && last?.state === "failed") {
      const trouble = last.error ?? "This was not finished. Try again.";
      card.cell.set({ versions: now.versions.slice(0, -1), at: Math.min(at, kept.length - 1), trouble });
    }
  }

  private async stream(
    request: Pick<Ask, "body" | "parent" | "key">,
    photo: Photo,
    heard: (event: CaptionEvent, id: string | null) => void,
  ): Promise<void> {
    const controller = new AbortController();
    this.running.add(controller);
    try {
      const image = await base64(photo.blob);
      await ask({ ...request, body: { image, ...request.body }, signal: controller.signal }, heard);
    } finally {
      this.running.delete(controller);
    }
  }

  private follow(event: CaptionEvent): void {
    switch (event.type) {
      case "described":
        this.run.update({ phase: "finding", description: event.text });
        break;
      case "trends":
        this.remember(event);
        this.run.update({
          phase: "writing",
          offered: event.trends.map(({ trend }) => trend),
          snapshot: event.snapshot ?? null,
          reason: (this.asked?.trends && event.reason) || null,
          unjudged: event.judged === "failed",
        });
        break;
      case "done":
        this.run.update({ phase: "done", done: event });
        break;
      case "failed":
        this.run.update({
          phase: "failed",
          error: new ApiError(event.code, event.message, 0, event.retry_after ?? null),
        });
        break;
      case "delta":
      case "highlight":
      case "candidate_done":
      case "candidate_failed":
        break; // its card's
    }
  }

  private remember(event: Event<"trends">): void {
    for (const { trend } of event.trends) this.trends.set(trend.id, trend);
  }

  private take(
    writer: VersionWriter | undefined,
    event: Event<"delta" | "highlight" | "candidate_done" | "candidate_failed">,
    id: string | null,
  ): void {
    writer?.take(event, id);
    if (event.type === "candidate_done") this.spoken.set(`Caption ${event.candidate + 1} is written: ${event.text}`);
  }
}

/** Writes what arrives into the last version of a card, at most once a frame. */
class VersionWriter {
  private readonly index: number;
  private next: Version;
  private frame = 0;

  constructor(private readonly cell: Cell<CardState>) {
    const { versions } = cell.get();
    this.index = versions.length - 1;
    const last = versions[this.index];
    if (!last) throw new Error("a card has at least one version");
    this.next = last;
  }

  take(event: Event<"delta" | "highlight" | "candidate_done" | "candidate_failed">, id: string | null): void {
    switch (event.type) {
      case "delta":
        this.next = { ...this.next, state: "writing", text: this.next.text + event.text };
        break;
      case "highlight": {
        const { start, end, trend_id } = event;
        const marks = [...this.next.marks, { start, end, trend_id }].sort((a, b) => a.start - b.start);
        this.next = { ...this.next, marks };
        break;
      }
      case "candidate_done":
        this.next = {
          ...this.next,
          state: "done",
          text: event.text,
          number: event.candidate,
          id,
          confidence: event.confidence ?? null,
          cut: event.cut,
          missing: event.missing,
          unwanted: event.unwanted,
          degraded: event.degraded,
        };
        break;
      case "candidate_failed":
        this.next = { ...this.next, state: "failed", error: event.message };
        break;
    }
    if (event.type === "delta" || event.type === "highlight") this.frame ||= requestAnimationFrame(() => this.flush());
    else this.flush();
  }

  /** Where it is not finished by now, it never will be. */
  end(state: "failed" | "stopped", error: string | null = null): void {
    if (this.next.state !== "waiting" && this.next.state !== "writing") return;
    this.next = { ...this.next, state, error };
    this.flush();
  }

  private flush(): void {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const { versions } = this.cell.get();
    this.cell.update({ versions: versions.with(this.index, this.next) });
  }
}

function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

function asError(error: unknown): ApiError {
  return error instanceof ApiError ? error : new ApiError("unexpected", "Something went wrong on this page. Try again.");
}
